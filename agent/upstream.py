"""One TLS connection to the API server: bytes in and out, for one user at a time; it knows no HTTP.

Who uses it (a relay) is called back synchronously, inside the loop's batch. What a user writes is gathered
and leaves in one write when the batch ends. Nobody's user means idle: a byte or an end that comes then
closes the connection, since the API server owes nothing, and whatever it says would be taken for the next
request's answer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Protocol, cast

from tunnel import sockets
from tunnel.batch import Batch
from tunnel.errors import ExchangeReset

NO_LINGER = struct.pack("ii", 1, 0)


class UpstreamUser(Protocol):
    """Who a connection works for. Never called again once `connection.user` is None."""

    def on_connected(self, connection: UpstreamConnection) -> None:
        """The connection that was waited for; its `user` is set."""

    def on_unavailable(self, error: ExchangeReset) -> None:
        """There will be no connection."""

    def on_bytes(self, data: bytes) -> None:
        """What the API server said."""

    def on_finished(self) -> None:
        """The API server's close_notify: it has said everything. `on_lost` follows."""

    def on_lost(self) -> None:
        """The connection is closed, whoever did it. It was the last call."""

    def on_drained(self, count: int) -> None:
        """`count` of the owed bytes have gone into the transport, which has room."""


class UpstreamHome(Protocol):
    """The pool, as its connections see it."""

    def on_stray(self, connection: UpstreamConnection) -> None:
        """An idle connection got a byte or an end, and closes."""

    def on_closing(self, connection: UpstreamConnection) -> None:
        """It has begun to close, and must be aborted if it does not get there."""

    def on_closed(self, connection: UpstreamConnection) -> None:
        """It is closed, and its place is free."""


class UpstreamConnection(asyncio.Protocol):
    """A connection that exists once `connection_made` was called; `reused` says that it was idle before."""

    __slots__ = (
        "_batch", "_closing", "_enrolled", "_gathered", "_home", "_opaque", "_owed", "_paused_reading",
        "_paused_writing", "_transport", "expires", "idle_since", "reused", "user",
    )  # fmt: skip

    def __init__(self, batch: Batch, home: UpstreamHome, expires: float) -> None:
        self._batch = batch
        self._home = home
        self._transport: asyncio.Transport | None = None
        self._gathered: list[bytes] = []
        self._owed = 0
        self._enrolled = self._closing = self._opaque = self._paused_reading = self._paused_writing = False
        self.expires = expires
        self.idle_since = 0.0
        self.reused = False
        self.user: UpstreamUser | None = None

    @property
    def closing(self) -> bool:
        """No request may be written any more."""
        return self._closing

    @property
    def settled(self) -> bool:
        """Everything written is in the transport, which has room: the request was sent."""
        return not self._gathered and not self._paused_writing

    def write(self, data: bytes, owed: int = 0) -> None:
        """Gather bytes for the batch's write; `owed` comes back by `on_drained` when they have left."""
        self._gathered.append(data)
        self._owed += owed
        if not self._enrolled:
            self._enrolled = True
            self._batch.add(self)

    def flush(self) -> None:
        """The batch's one write."""
        self._enrolled = False
        gathered, self._gathered = self._gathered, []
        if self._transport is None or self._closing or not gathered:
            return
        self._transport.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))
        if self._owed and not self._paused_writing:
            self._drained()

    def pause(self) -> None:
        """The user's own reader is slow: leave the bytes with the API server."""
        if self._transport is not None and not self._closing and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused_reading:
            self._paused_reading = False
            if self._transport is not None and not self._closing:
                self._transport.resume_reading()

    def allow_stall(self) -> None:
        """An opaque stream from here on, whose other end may read when it likes. Never a request again."""
        self._opaque = True
        if self._transport is not None:
            sockets.allow_stall(self._transport)

    def close(self) -> None:
        """Write what was gathered, say goodbye, and be gone; the pool aborts what takes too long."""
        if self._closing or self._transport is None:
            return
        self.flush()
        self._closing = True
        self._home.on_closing(self)
        self._transport.close()

    def abort(self) -> None:
        """Close now, without a word. `on_lost` still comes, from the loop.

        An opaque stream's peer may have stopped reading: a FIN would stand behind megabytes that wait in the kernel,
        and the command behind it would run on for minutes. A RST comes through.
        """
        reset, self._closing = self._opaque and not self._closing, True
        self._gathered = []
        if self._transport is not None:
            if reset:
                _end_by_reset(self._transport)
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is up, and the server's name and certificate are verified."""
        self._transport = made = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        sockets.tune(made)
        sockets.end_after_bytes(made)
        made.set_write_buffer_limits(sockets.WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, within the batch that gathers what they lead to."""
        user = self.user
        if user is None or self._closing:
            self._stray()
            return
        with self._batch:
            user.on_bytes(data)

    def eof_received(self) -> None:
        """A close_notify: uvloop calls this for nothing less, so a cut connection cannot pass for an end."""
        user = self.user
        if user is None:
            self._stray()
            return
        with self._batch:
            user.on_finished()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone. A reset of the peer and a close of our own look the same to the user, who knows which he
        asked for.
        """
        self._closing = True
        self._transport = None
        user, self.user = self.user, None
        with self._batch:
            if user is not None:
                user.on_lost()
            self._home.on_closed(self)

    def pause_writing(self) -> None:
        """The API server reads slowly."""
        self._paused_writing = True

    def resume_writing(self) -> None:
        """What is owed has left, or will at once."""
        self._paused_writing = False
        if self._owed and not self._gathered:
            with self._batch:
                self._drained()

    def _drained(self) -> None:
        owed, self._owed = self._owed, 0
        if self.user is not None:
            self.user.on_drained(owed)

    def _stray(self) -> None:
        if not self._closing:
            self._home.on_stray(self)
            self.abort()


def _end_by_reset(transport: asyncio.Transport) -> None:
    """What the kernel still holds is thrown away when the connection closes."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError, ValueError):  # closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
