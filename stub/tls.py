"""TLS of the agents' door, on a plain transport of the loop, with little memory for each connection.

uvloop's own TLS is made for speed: each connection keeps what its largest read ever took, twice, so that one answer of
64 kB costs 150 kB for as long as the agent stays, and there are thousands of agents that are mostly idle. Here nothing
is kept between two reads but OpenSSL's own state, for some microseconds more of each read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

from tunnel.limits import KIB

STEP = 8 * KIB
"""Bytes that are given to OpenSSL at a time: its memory BIOs grow to the largest piece, and never shrink."""
RECORD = 16 * KIB
"""A TLS record's payload at most: a read gives no more."""
ANSWERS = 512 * KIB
"""Unsent when TLS itself answers (key updates): more than a link ever writes. A peer that only asks is ended."""
SHUTDOWN = 30.0
"""Seconds for the peer to take what was written before `close`, and to close, too."""


class TlsConnection(asyncio.Protocol, asyncio.Transport):
    """The server's side of one connection: the protocol of a plain transport, and the transport of the one inside,
    which `make` makes when the handshake is done. `lost` is called where that fails.
    """

    __slots__ = ("_closing", "_ended", "_incoming", "_inner", "_lost", "_lower", "_make", "_outgoing", "_timer", "_tls")

    def __init__(self, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol], lost: Callable[[], None]) -> None:
        self._inner: asyncio.Protocol | None = None
        self._make: Callable[[], asyncio.Protocol] | None = make
        self._lost: Callable[[], None] | None = lost
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._lower: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._ended = False

    # --- the protocol of the plain transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._lower = cast(asyncio.Transport, transport)
        if self._closing:
            self._lower.abort()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if len(data) <= STEP:
            pieces = self._take(data)
        else:
            view = memoryview(data)
            pieces = [piece for at in range(0, len(data), STEP) for piece in self._take(view[at : at + STEP])]
        if pieces and not self._closing and self._inner is not None:
            self._inner.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._ended:
            self._peer_closed()

    def eof_received(self) -> bool:
        """See asyncio. TLS's own end is not waited for: whether the link was complete, its carriage says."""
        return False

    def pause_writing(self) -> None:
        """See asyncio."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See asyncio."""
        self._lower, self._closing = None, True
        if self._timer is not None:
            self._timer.cancel()
        if self._inner is not None:
            self._inner.connection_lost(cast("Exception | None", exc))
        elif self._lost is not None:
            self._lost()

    # --- TLS

    def _take(self, data: bytes | memoryview) -> list[bytes]:
        """What these bytes decrypt to."""
        if self._ended or self._lower is None:
            return []
        self._incoming.write(data)
        pieces: list[bytes] = []
        try:
            if self._inner is not None or self._shake_hands():
                self._read(pieces)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError:
            self._flush()  # the alert says why
            self._lower.close()
            self._closing = True
        self._answer()
        return pieces

    def _shake_hands(self) -> bool:
        """Raises SSLError; SSLWantReadError is one."""
        if self._closing or self._make is None:
            return False
        self._tls.do_handshake()
        self._flush()
        self._inner = self._make()
        self._make = self._lost = None
        self._inner.connection_made(self)
        return True

    def _read(self, pieces: list[bytes]) -> None:
        """Raises SSLError; SSLWantReadError is one."""
        read, incoming, pending = self._tls.read, self._incoming, self._tls.pending
        while incoming.pending or pending():
            piece = read(RECORD)
            if not piece:
                raise ssl.SSLZeroReturnError
            pieces.append(piece)

    def _answer(self) -> None:
        """Send what TLS itself has to say."""
        if self._outgoing.pending:
            self._flush()
            if self.get_write_buffer_size() > ANSWERS:
                self.abort()

    def _flush(self) -> None:
        if self._lower is not None and not self._lower.is_closing() and (data := self._outgoing.read()):
            self._lower.write(data)

    def _peer_closed(self) -> None:
        if self._inner is not None and not self._closing:
            self._inner.eof_received()
            self.close()
        if self._lower is not None:
            self._lower.close()

    # --- the transport of what is inside

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio."""
        if self._closing:
            return
        try:
            if len(data) <= RECORD:
                self._tls.write(data)
                self._flush()
                return
            view = memoryview(data)
            for at in range(0, len(data), RECORD):
                self._tls.write(view[at : at + RECORD])
                self._flush()
        except ssl.SSLError:
            self.abort()

    def close(self) -> None:
        """What was written is sent, then TLS's own end; what the peer still sends is dropped until it closes."""
        if self._closing:
            return
        self._closing = True
        if self._inner is None or self._lower is None:
            self.abort()
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # it wants the peer's close, which may come later, or not at all
        self._flush()
        self._timer = asyncio.get_running_loop().call_later(SHUTDOWN, self.abort)

    def abort(self) -> None:
        """See asyncio."""
        self._closing = True
        if self._lower is not None:
            self._lower.abort()

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio."""
        if name == "ssl_object":
            return self._tls
        return self._lower.get_extra_info(name, default) if self._lower is not None else default

    def get_write_buffer_size(self) -> int:
        """See asyncio: nothing is held but by the plain transport, encrypted."""
        return self._lower.get_write_buffer_size() if self._lower is not None else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio."""
        if self._lower is not None:
            self._lower.set_write_buffer_limits(high, low)

    def is_reading(self) -> bool:
        """See asyncio."""
        return self._lower is not None and self._lower.is_reading()

    def pause_reading(self) -> None:
        """See asyncio."""
        if self._lower is not None:
            self._lower.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio."""
        if self._lower is not None:
            self._lower.resume_reading()
