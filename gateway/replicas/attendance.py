"""Who is attached to other replicas. Nobody is told of it all the time: whoever wants to know asks the replicas that
have the clusters, about these alone, and each cluster is asked about once a second at most.

What is in memory is a second or two old, or it is not known: then nothing is made of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from gateway.management import Attached
from gateway.membership.heartbeats import Heartbeats, Pulse, Renewal
from gateway.membership.inventory import Inventory
from gateway.replicas.agentcalls import Ask
from stub.ownership import Ownership
from stub.sessions import Sessions
from tunnel.calls import CallFailed, Params

ATTENDANCE: Final = "attendance"
PAGE: Final = 100
"""Clusters in a question: a millisecond or two of each replica's."""
AGE: Final = 1.0
"""Seconds for which an answer is not asked for again."""
FRESH: Final = 4.0
"""Seconds for which it counts."""
WANTED: Final = 5.0
"""Seconds for which somebody who asks without waiting is kept up to date."""
WATCHED: Final = 60.0
"""Seconds for which one is who asks about all clusters in turn."""
SHARE: Final = 10.0
"""Between two rounds about these is so many times what one takes: with very many they become rarer, not dearer."""
LIMIT: Final = 2.0
"""Seconds for one replica to answer about a page."""
PATIENCE: Final = 5.0
"""Seconds for all to answer about all that somebody asks about."""
_MOST_REPORTS: Final = 64
_MOST_MESSAGE: Final = 1024
_DURATION: Final = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A cluster's agents at another replica. `callable` are those by id of their cluster that take calls."""

    at: float
    attached: Attached
    callable: Mapping[str, int]
    reports: tuple[Mapping[str, Any], ...]
    inventory: Inventory


class OwnAttendance:
    """What this replica tells of its own agents."""

    def __init__(self, ownership: Ownership, sessions: Sessions, heartbeats: Heartbeats) -> None:
        self._ownership = ownership
        self._sessions = sessions
        self._heartbeats = heartbeats

    async def answer(self, params: Params) -> Params:
        """{"clusters": [NAME, …]}, at most a page. A cluster that is not here (any more) is left out."""
        names = params.get("clusters")
        if not isinstance(names, list) or len(names) > PAGE or not all(isinstance(name, str) for name in names):
            raise CallFailed("request", f"ask about at most {PAGE} clusters at a time")
        here = [name for name in names if self._ownership.place(name).mine or self._sessions.of(name)]
        return {"clusters": {name: self._of(name) for name in here}}

    def _of(self, name: str) -> dict[str, Any]:
        state = self._sessions.state(name)
        takes: dict[str, int] = {}
        for session in self._sessions.of(name):
            if session.available:
                takes[session.info.cluster_id] = takes.get(session.info.cluster_id, 0) + 1
        pulse = self._heartbeats.pulse(name)
        return {
            "agents": state.agents,
            "ready": state.ready,
            "message": state.message[:_MOST_MESSAGE],
            "callable": takes,
            "reports": [one.shown() for one in self._heartbeats.of(name)[:_MOST_REPORTS]],
            "inventory": pulse.inventory.text() if pulse is not None else "",
        }


class OthersAttendance:
    """What others tell. `run` keeps up to date what was asked for lately by who cannot wait."""

    def __init__(self, ownership: Ownership, ask: Ask, clock: Callable[[], float]) -> None:
        self._ownership = ownership
        self._ask = ask
        self._clock = clock
        self._seen: dict[str, Seen | None] = {}
        self._asked: dict[str, float] = {}
        """When it was asked about a cluster last, whatever came of it."""
        self._wanted: dict[str, float] = {}
        self._watched: dict[str, float] = {}
        """Until when it is asked about each second, and now and then."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._news = asyncio.Event()

    def seen(self, cluster: str) -> Seen | None:
        """From memory; None: not known."""
        found = self._seen.get(cluster)
        return found if found is not None and self._clock() - found.at < FRESH else None

    def follow(self, cluster: str) -> Seen | None:
        """The same, and it is asked about for the next seconds."""
        self._wanted[cluster] = self._clock() + WANTED
        self._news.set()
        return self.seen(cluster)

    def renewal(self, cluster: str) -> Renewal:
        """As a heartbeat, where there are no Leases of them. What is not known leaves what was so."""
        self._watched[cluster] = self._clock() + WATCHED
        self._news.set()
        seen = self._seen.get(cluster)
        if seen is None:
            return Renewal(Pulse(1, 0, "", Inventory(), 0.0), _DURATION, self._clock(), fresh=False)
        told = seen.attached
        return Renewal(Pulse(told.agents, told.ready, told.message, seen.inventory, 0.0), _DURATION, seen.at)

    async def refresh(self, clusters: Iterable[str]) -> None:
        """Ask about those that are others', unless that was just done. What is not answered in time is not known."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._ask_all(clusters)

    async def run(self) -> None:
        """Until cancelled."""
        due = self._clock()
        while True:
            await self._news.wait()
            now = self._clock()
            self._wanted = {name: until for name, until in self._wanted.items() if now < until}
            self._watched = {name: until for name, until in self._watched.items() if now < until}
            if not (self._wanted or self._watched):
                self._news.clear()
                self._forget(now)
                continue
            await self._ask_all(self._wanted)
            if now >= due and self._watched:
                began = self._clock()
                await self._ask_all(self._watched)
                due = self._clock() + SHARE * (self._clock() - began)
            await asyncio.sleep(AGE)

    async def _ask_all(self, clusters: Iterable[str]) -> None:
        by_replica: dict[str, list[str]] = {}
        for cluster in clusters:
            place = self._ownership.place(cluster)
            if place.replica and not place.mine:
                by_replica.setdefault(place.replica, []).append(cluster)
        await asyncio.gather(*(self._refresh(replica, names) for replica, names in by_replica.items()))

    async def _refresh(self, replica: str, names: list[str]) -> None:
        """One at a time asks a replica: who comes meanwhile finds what the one before has heard."""
        async with self._locks.setdefault(replica, asyncio.Lock()):
            now = self._clock()
            due = [name for name in names if now - self._asked.get(name, float("-inf")) >= AGE]
            for at in range(0, len(due), PAGE):
                page = due[at : at + PAGE]
                self._asked |= dict.fromkeys(page, now)
                try:
                    said = await self._ask(replica, ATTENDANCE, {"clusters": page}, LIMIT)
                    self._seen |= _read(page, said, self._clock())
                except CallFailed:
                    self._seen |= dict.fromkeys(page)
                    self._asked |= dict.fromkeys(due, now)
                    return
            self._forget(now)

    def _forget(self, now: float) -> None:
        """What is too old to count."""
        if len(self._asked) > 2 * PAGE:
            kept = self._watched
            self._asked = {name: at for name, at in self._asked.items() if now - at < FRESH or name in kept}
            self._seen = {name: seen for name, seen in self._seen.items() if name in self._asked}
        living = {one.identity for one in self._ownership.replicas()}
        self._locks = {name: lock for name, lock in self._locks.items() if name in living or lock.locked()}


def _read(names: Iterable[str], said: Params, now: float) -> dict[str, Seen | None]:
    """:raises CallFailed: it is no answer."""
    try:
        clusters = said["clusters"]
        return {name: _seen(clusters.get(name), now) for name in names}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise CallFailed("answer", "another replica's attendance is not understood") from None


def _seen(one: Any, now: float) -> Seen | None:
    if one is None:
        return None
    attached = Attached(int(one["agents"]), int(one["ready"]), str(one["message"])[:_MOST_MESSAGE])
    takes = {str(uid): int(count) for uid, count in one["callable"].items()}
    return Seen(now, attached, takes, tuple(one["reports"]), Inventory.read(str(one["inventory"])))
