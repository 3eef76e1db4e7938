"""When agents of a cluster were last connected to any replica: for a second cluster that asks for the name of a first
one. It is asked at the others for as long as somebody wants the name, and never on the way of whoever asks: until all
have answered, the first one may be connected.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from gateway.membership.takeover import Presence
from gateway.replicas.agentcalls import Ask
from stub.ownership import Ownership
from tunnel.calls import CallFailed, Params

PRESENCE: Final = "presence"
EVERY: Final = 1.0
FRESH: Final = 4.0
"""Seconds for which an answer counts."""
WANTED: Final = 60.0
"""Seconds for which it is asked after somebody wanted to know: an agent asks again after 10."""
MOST: Final = 500
"""Names that are wanted at a time; of others nothing is known."""
LIMIT: Final = 2.0
_Who = tuple[str, str]


class OwnPresence:
    """What this replica says to others: seconds since then, for clocks differ."""

    def __init__(self, own: Presence, wall: Callable[[], float]) -> None:
        self._own = own
        self._wall = wall

    async def answer(self, params: Params) -> Params:
        """{"clusters": [[NAME, ID], …]} gives {"seconds": […]} in their order."""
        asked = params.get("clusters")
        if not isinstance(asked, list) or len(asked) > MOST or not all(map(_is_who, asked)):
            raise CallFailed("request", "a question about presence that is not understood")
        now = self._wall()
        return {"seconds": [max(0.0, now - self._own.last_connected(name, uid)) for name, uid in asked]}


class SharedPresence:
    """A `Presence` of all replicas. `run` asks; `own` is this one's. A replica that is not among those alive any more
    had agents until then, for all that is known.
    """

    def __init__(
        self,
        identity: str,
        own: Presence,
        ownership: Ownership,
        ask: Ask,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._own = own
        self._ownership = ownership
        self._ask = ask
        self._clock = clock
        self._wall = wall
        self._wanted: dict[_Who, float] = {}
        self._told: dict[str, dict[_Who, tuple[float, float]]] = {}
        """By replica: when it was last connected there, and when that was said."""
        self._living = self._others()
        self._lost = clock()
        self._news = asyncio.Event()

    def changed(self) -> None:
        """Hears `Ownership`."""
        living = self._others()
        if self._living - living:
            self._lost = self._clock()
        self._living = living
        self._told = {replica: told for replica, told in self._told.items() if replica in living}

    def last_connected(self, cluster: str, uid: str) -> float:
        """See `Presence`."""
        self.changed()
        now, who = self._clock(), (cluster, uid)
        if who in self._wanted or len(self._wanted) < MOST:
            self._wanted[who] = now
            self._news.set()
        latest = max([self._lost, *(self._at(replica, who, now) for replica in self._living)])
        return max(self._own.last_connected(cluster, uid), self._wall() - max(0.0, now - latest))

    def _at(self, replica: str, who: _Who, now: float) -> float:
        connected, said = self._told.get(replica, {}).get(who, (now, -math.inf))
        return connected if now - said < FRESH else now

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            now = self._clock()
            self._wanted = {who: at for who, at in self._wanted.items() if now - at < WANTED}
            if not self._wanted:
                self._news.clear()
                self._told.clear()
                continue
            await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Ask all, once."""
        wanted = list(self._wanted)
        await asyncio.gather(*(self._look_at(replica, wanted) for replica in self._others()))

    async def _look_at(self, replica: str, wanted: list[_Who]) -> None:
        try:
            said = await self._ask(replica, PRESENCE, {"clusters": [list(who) for who in wanted]}, LIMIT)
            seconds = [float(one) for one in said["seconds"]]
            if len(seconds) != len(wanted) or not all(one >= 0 for one in seconds):
                return
        except (CallFailed, KeyError, TypeError, ValueError):
            return
        now = self._clock()
        self._told[replica] = {who: (now - one, now) for who, one in zip(wanted, seconds, strict=True)}

    def _others(self) -> frozenset[str]:
        return frozenset(one.identity for one in self._ownership.replicas()) - {self._identity}


def _is_who(one: object) -> bool:
    return isinstance(one, list) and len(one) == 2 and all(isinstance(part, str) and len(part) <= 256 for part in one)
