"""What all connections of one listener share: their bounds, one sweep of their deadlines, and the way out when
draining.

No sockets and no timers here: the listener brings both.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from gateway.limits import DoorLimits, DoorTimeouts
from gateway.passage import Passage
from gateway.ports import Owner
from tunnel.batch import Batch
from tunnel.errors import HeadError

if TYPE_CHECKING:
    from gateway.connection import ClientConnection
    from gateway.peer import Peer


class Handler(Owner, Protocol):
    """Who serves requests: the pipeline."""

    def serve(self, passage: Passage) -> None:
        """Open an exchange for it (`Passage.opened`), now or later, or answer it. Must not raise."""

    def refusal(self, peer: Peer, refused: HeadError) -> bytes:
        """A whole answer (head and body, Connection: close) to what was no request."""


class Overseer(Protocol):
    """Who looks at live streams: gateway.rechecking.Rechecking."""

    def look(self, passage: Passage) -> None:
        """A stream is still live: cut it if its user may not have it any more. Must not raise."""


class DoorCounts:
    """Connections, for metrics."""

    __slots__ = ("accepted", "refused")

    def __init__(self) -> None:
        self.accepted = self.refused = 0


class Door:
    """See above. `now` is the time of the last sweep: coarse, and free to read."""

    __slots__ = (
        "_next_recheck",
        "batch",
        "connections",
        "counts",
        "draining",
        "empty",
        "handler",
        "leaving",
        "limits",
        "now",
        "overseer",
        "timeouts",
    )

    def __init__(
        self,
        handler: Handler,
        overseer: Overseer,
        batch: Batch,
        limits: DoorLimits,
        timeouts: DoorTimeouts,
        now: float,
    ) -> None:
        self.handler = handler
        self.overseer = overseer
        self.batch = batch
        self.limits = limits
        self.timeouts = timeouts
        self.now = now
        self.connections: set[ClientConnection] = set()
        self.counts = DoorCounts()
        self.draining = self.leaving = False
        self.empty = asyncio.Event()
        """Set when draining has nothing left to wait for."""
        self._next_recheck = now + timeouts.recheck

    def admit(self, connection: ClientConnection) -> bool:
        """Take a connection in. False: there are too many."""
        if self.draining or len(self.connections) >= self.limits.connections:
            self.counts.refused += 1
            return False
        self.counts.accepted += 1
        self.connections.add(connection)
        return True

    def forget(self, connection: ClientConnection) -> None:
        """A connection has ended, and its last exchange too."""
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self.empty.set()

    def sweep(self, now: float) -> None:
        """Find what is overdue, and whose streams must be looked at again."""
        self.now = now
        recheck = now >= self._next_recheck
        if recheck:
            self._next_recheck = now + self.timeouts.recheck
        with self.batch:
            for connection in tuple(self.connections):
                if now >= connection.deadline:
                    connection.expired()
                    continue
                if not connection.reading:
                    connection.look()
                if recheck:
                    connection.recheck()
                if self.draining:
                    connection.conclude()

    def leave(self) -> None:
        """Each answer from now on is its connection's last, and says so: whoever asks again goes elsewhere, before
        connections that nobody uses are closed.
        """
        self.leaving = True

    def drain(self) -> None:
        """No new connections; idle ones close now, the others after their current answer."""
        self.draining = self.leaving = True
        if not self.connections:
            self.empty.set()
        with self.batch:
            for connection in tuple(self.connections):
                connection.drain()

    def abort(self) -> None:
        """Patience is over."""
        with self.batch:
            for connection in tuple(self.connections):
                connection.abort()
