"""One replica as the others are to know it, and the clocks that it goes by."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from stub.leases.clock import steady
from stub.leases.roster import AGENTS, PEER


@dataclass(frozen=True, slots=True)
class Myself:
    """`randomness` gives numbers from 0 to 1."""

    identity: str
    """Its pod's name."""
    peer_address: str
    agents_address: str = ""
    clock: Callable[[], float] = field(default=steady, repr=False)
    wall: Callable[[], float] = field(default=time.time, repr=False)
    randomness: Callable[[], float] = field(default=lambda: 0.5, repr=False)

    @property
    def notes(self) -> dict[str, str]:
        """For its Lease."""
        given = {PEER: self.peer_address, AGENTS: self.agents_address}
        return {name: value for name, value in given.items() if value}
