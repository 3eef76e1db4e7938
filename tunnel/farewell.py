"""How a connection ends whose work is done: not before its last bytes have arrived (docs/protocol.md, 1).

Closing the socket would lose them: what a TLS transport holds is dropped after a while, and what the kernel holds is
dropped as soon as the peer sends anything (a CREDIT, a PING) to a socket that is closed. So both stay open until the
peer, which gets our close behind everything else, closes too.
"""

from __future__ import annotations

import asyncio

from tunnel.limits import Timing
from tunnel.sockets import unsent

LOOK = 0.25
"""Seconds between looks, at most."""
PATIENCE = 2.0
"""Seconds that closing itself may take: for a peer with nothing left to get."""


class Farewell:
    """Watches a connection on which everything is written, the carriage's close included. One timer for each.

    Whatever the number of unsent bytes does is progress, since nothing is added any more. (Between the transport and
    the kernel may be more that nobody counts: a TLS transport has another one below it.)
    """

    __slots__ = ("_began", "_left", "_loop", "_since", "_timer", "_timing", "_transport")

    def __init__(self, transport: asyncio.Transport, timing: Timing) -> None:
        self._transport = transport
        self._timing = timing
        self._loop = asyncio.get_running_loop()
        self._began = self._since = self._loop.time()
        self._left = unsent(transport)
        self._timer = self._loop.call_later(self._pause, self._look)

    @property
    def _pause(self) -> float:
        return min(LOOK, self._timing.progress / 8)

    def _look(self) -> None:
        now, left = self._loop.time(), unsent(self._transport)
        if left != self._left:
            self._left, self._since = left, now
        waits = PATIENCE if self._transport.is_closing() and not left else self._timing.progress
        if now - self._since >= waits or now - self._began >= self._timing.farewell:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(self._pause, self._look)

    def answered(self) -> None:
        """The peer has closed, so nothing more is waited for."""
        if not self._transport.is_closing():
            self._since = self._loop.time()
            self._transport.close()

    def cancel(self) -> None:
        """The connection is gone."""
        self._timer.cancel()
