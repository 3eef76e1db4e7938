"""What every connection of the agents' door needs."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field

from stub.authority import AgentAuthority
from stub.ownership import Alone, Ownership, Replica
from stub.placements import Placements
from stub.placing import Adopter, WaitingRoom
from stub.session import AgentInfo
from stub.sessions import Sessions
from tunnel.adapter import LinkConnection
from tunnel.calls import Method
from tunnel.limits import LinkLimits, Timing


@dataclass(frozen=True, slots=True)
class Attachment:
    """What every connection of the agents' door needs. `names` are those that agents may dial, without ports, and
    `*.domain` for all below it; empty: any. `max_links` is for a session, `max_sessions` for a cluster, and
    `max_links_in_all` for this process: beyond it neither own links nor sessions are taken. Several replicas have
    `epoch` 0, since only hello says which cluster's holding it is about: `welcome` tells it.
    """

    authority: AgentAuthority
    sessions: Sessions
    server: str
    epoch: int
    limits: LinkLimits = field(default_factory=LinkLimits)
    timing: Timing = field(default_factory=Timing)
    names: frozenset[str] = frozenset()
    max_links: int = 10_000
    max_sessions: int = 16
    max_links_in_all: int = 20_000
    links: set[LinkConnection] = field(default_factory=set)
    """Connections that are links, until they are closed: those that send their last bytes hold a socket, too."""
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    randomness: Callable[[int], bytes] = secrets.token_bytes
    methods: Callable[[AgentInfo], Mapping[str, Method]] = lambda _agent: {}
    """What an agent may call (`tunnel.calls`) besides the renewal of its certificate: each session gets its own."""
    ownership: Ownership | None = None
    """Which clusters are this replica's; None: all of them, with `epoch`."""
    room: WaitingRoom | None = None
    adopter: Adopter | None = None
    placements: Placements = field(default_factory=Placements)
    reached: Callable[[str], bool] = lambda _identity: True
    """Whether another replica answers this one."""
    later: Callable[[Coroutine[None, None, None], str], object] = lambda work, name: asyncio.create_task(
        work, name=name
    )
    """Owns the tasks of the door: few, and short."""
    keeping: Callable[[], Callable[[], Awaitable[None]]] | None = None
    """Called before a certificate is made; what it gives returns when every replica finds the certificate: it is given
    out after that.
    """
    session_id: Callable[[Callable[[int], bytes]], str] = lambda randomness: randomness(16).hex()
    hint: str = ""
    """With which an agent reaches this very process at the address of all (`tunnel.handshake.Welcome`)."""
    elsewhere: Callable[[str], Replica | None] = lambda _session: None
    """The other replica that has made a session's id."""

    @property
    def owners(self) -> Ownership:
        """Never None."""
        return self.ownership or Alone("", self.epoch)
