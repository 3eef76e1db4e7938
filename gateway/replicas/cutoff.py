"""A replica that alone has lost the hub: the others hold what it held, and it cannot know it by the Leases.

It asks those that it knew, over the links between replicas, whether they see the hub. If one does, this replica is cut
off: it sends its agents there, takes none, and is not ready. If nobody does, the hub is away for all: agents stay where
they are, and the holder of before goes on when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.replicas.agentcalls import Ask
from stub.ownership import Replica
from tunnel.calls import CallFailed, Params

SIGHT: Final = "sight"
EVERY: Final = 1.0
"""Seconds between two rounds of questions, and the time for their answers."""
COUNTS: Final = 10.0
"""Seconds for which an answer counts when none follows."""
KNOWN: Final = 60.0
"""Seconds after which a replica that is not alive any more is forgotten, by one that sees the hub."""


class Sight(Protocol):
    """Of the Leases: `stub.leases.member.Member`."""

    @property
    def sees(self) -> bool:
        """It has looked of late."""
        ...

    @property
    def blind(self) -> bool:
        """It could not look for longer than a Lease lasts: others may hold what was its own."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and when it came."""

    sees: bool
    at: float


def sighted(blind: bool, said: Mapping[str, Said], now: float) -> str | None:
    """A replica that sees the hub while this one does not; None: this one sees it, or nobody is known to."""
    fresh = (one for one, heard in sorted(said.items()) if heard.sees and now < heard.at + COUNTS)
    return next(fresh, None) if blind else None


class CutOff:
    """`run` asks, `answer` is what others are told, `changed` is called when anything that it says has changed."""

    def __init__(
        self, identity: str, sight: Sight, ask: Ask, clock: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        self._identity = identity
        self._sight = sight
        self._ask = ask
        self._clock = clock
        self._known: dict[str, Replica] = {}
        self._missed: dict[str, float] = {}
        """Since when those of the known are not alive any more, as far as the Leases tell."""
        self._said: dict[str, Said] = {}
        self._told: object = None
        self._changed = changed

    # --- what it says

    @property
    def away(self) -> str | None:
        """None: this replica is not cut off. Otherwise where agents reach a better one; empty: they have to find it."""
        found = sighted(self._sight.blind, self._said, self._clock())
        if found is None:
            return None
        return self._known[found].agents_address if found in self._known else ""

    @property
    def problem(self) -> str | None:
        """For readiness."""
        found = sighted(self._sight.blind, self._said, self._clock())
        return f"this replica cannot read the Leases, and replica {found} can: it is cut off" if found else None

    def known(self, alive: Sequence[Replica]) -> tuple[Replica, ...]:
        """To whom links are kept: those that are alive, or, while that cannot be seen, those that were."""
        now = self._clock()
        others = {one.identity: one for one in alive if one.identity != self._identity}
        self._known |= others
        self._missed = {name: self._missed.get(name, now) for name in self._known if name not in others}
        if not self._sight.sees:
            return tuple(self._known.values())
        for name in [name for name, since in self._missed.items() if now >= since + KNOWN]:
            del self._known[name], self._missed[name]
        return tuple(others.values())

    # --- what it does

    async def answer(self, _params: Params) -> Params:
        """Another replica asks."""
        return {"sees": self._sight.sees}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            if self._sight.sees:
                self._said.clear()
            elif self._sight.blind:
                await self._ask_all()
            self._look()

    async def _ask_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for identity in self._known:
                group.create_task(self._ask_one(identity), name=f"ask {identity} whether it sees the hub")

    async def _ask_one(self, identity: str) -> None:
        try:
            said = await self._ask(identity, SIGHT, {}, EVERY)
        except CallFailed:
            return  # what it said before counts for a while
        self._said[identity] = Said(said.get("sees") is True, self._clock())

    def _look(self) -> None:
        told = (self._sight.sees, self.away)
        if told != self._told:
            self._told = told
            self._changed()
