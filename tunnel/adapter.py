"""The tunnel's one I/O adapter: a link on an asyncio transport.

It adds what asyncio owns (the transport, its pauses, the batch of one loop turn) and nothing else. Before a link is
attached, bytes go to a `greeter` (the handshake of either end), which hands over by `attach`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

from tunnel.batch import Batch
from tunnel.carriage import Carriage
from tunnel.errors import ProtocolError
from tunnel.farewell import PATIENCE, Farewell
from tunnel.limits import LinkLimits, Timing
from tunnel.sockets import unsent


class Greeter(Protocol):
    """Who speaks on a connection until a link is attached."""

    def on_open(self, connection: LinkConnection) -> None:
        """The carriage is open."""

    def on_bytes(self, connection: LinkConnection, data: bytes) -> None:
        """Bytes of the link's stream before it is attached. Raises ProtocolError."""

    def on_lost(self, connection: LinkConnection, reason: str) -> None:
        """The connection has ended before a link was attached."""


class Carried(Protocol):
    """What a connection carries: a `tunnel.link.Link`, or the bytes of one that somebody else reads."""

    on_output: Callable[[], None]
    on_close: Callable[[str], None]
    on_finish: Callable[[str], None]
    closed: bool
    paused: bool

    @property
    def unfinished(self) -> bool: ...
    def receive(self, data: bytes) -> None: ...
    def take(self) -> list[bytes]: ...
    def resume(self) -> None: ...


C = TypeVar("C", bound=Carried)


class LinkConnection(asyncio.Protocol):
    """One connection that carries a link."""

    def __init__(
        self, carriage: Carriage, greeter: Greeter, batch: Batch, limits: LinkLimits, timing: Timing | None = None
    ) -> None:
        self._carriage = carriage
        self._greeter: Greeter | None = greeter
        self._batch = batch
        self._limits = limits
        self._timing = timing or Timing()
        self._link: Carried | None = None
        self._detach: Callable[[str], None] = lambda _reason: None
        self._crowded: Callable[[], bool] = lambda: False
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._enrolled = False
        self._was_open = False
        self._finished = False
        self._leaving: Farewell | asyncio.TimerHandle | None = None
        self._why = "the connection was closed"

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._finished:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=self._limits.transport_buffer)
        first = self._carriage.begin()
        if first:
            self._transport.write(first)

    def data_received(self, data: bytes) -> None:
        with self._batch:
            try:
                self._receive(data)
            except ProtocolError as error:
                self.end(str(error))

    def _receive(self, data: bytes) -> None:
        try:
            pieces = self._carriage.receive(data)
        finally:
            self._write_pending()
        if self._carriage.ended and isinstance(self._leaving, Farewell):
            self._leaving.answered()
        if not self._was_open and self._carriage.open:
            self._was_open = True
            if self._greeter is not None:
                self._greeter.on_open(self)
        for piece in pieces:
            if self._finished:
                return
            if self._link is not None:
                self._link.receive(piece)
            elif self._greeter is not None:
                self._greeter.on_bytes(self, piece)
        if self._was_open and not self._carriage.open:
            self.finish("the peer closed the link")

    def _write_pending(self) -> None:
        """The carriage's own answers; they are bounded, too, where the peer asks for them and does not read."""
        pending = self._carriage.pending()
        transport = self._transport
        if not pending or transport is None or transport.is_closing():
            return
        transport.write(pending)
        if transport.get_write_buffer_size() > self._limits.transport_buffer + self._limits.control_queue:
            self.abort("the peer does not read")

    def eof_received(self) -> bool:
        self._why = "the peer closed the connection"
        return False

    def pause_writing(self) -> None:
        self._paused = True
        if self._link is not None:
            self._link.paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._link is not None:
            with self._batch:
                self._link.resume()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        if self._leaving is not None:
            self._leaving.cancel()
        self._finish(f"{self._why} ({exc})" if exc else self._why)

    def _finish(self, reason: str) -> None:
        if self._finished:
            return
        self._finished = True
        with self._batch:
            if self._link is None and self._greeter is not None:
                self._greeter.on_lost(self, reason)
            elif self._link is not None:
                self._link.closed = True
                self._detach(reason)

    # --- for the greeter and the session

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport while the connection lives: for addresses and certificates."""
        return self._transport

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not acknowledged yet, once nothing more is written."""
        return unsent(self._transport) if self._transport is not None else 0

    def attach(self, link: C, detach: Callable[[C, str], None], crowded: Callable[[], bool]) -> None:
        """From now on the connection's bytes are this link's. `crowded` tells whether waiting a loop turn pays."""
        self._link = link
        self._greeter = None  # it has done its work, and a link may live for months
        self._detach = lambda reason: detach(link, reason)
        self._crowded = crowded
        link.on_output = self._on_output
        link.on_close = self.end
        link.on_finish = self.finish
        if self._paused:
            link.paused = True
        else:
            link.resume()

    def send(self, frame: bytes) -> None:
        """Write a frame of the handshake."""
        if self._transport is not None and self._carriage.open:
            self._transport.write(self._carriage.wrap([frame]))

    def finish(self, reason: str) -> None:
        """End the connection, whose work is done: what is committed arrives, as long as the peer takes any of it."""
        transport = self._transport
        if self._finished or transport is None or transport.is_closing() or not self._was_open:
            self.end(reason)
            return
        if self._link is not None:
            self._link.paused = False  # what is committed goes out now or never, and it is bounded
        self._write_out()
        last = self._carriage.close()
        if last:
            transport.write(last)
        self._leaving = Farewell(transport, self._timing)
        if self._carriage.ended:
            self._leaving.answered()
        self._finish(reason)

    def end(self, reason: str) -> None:
        """End the connection, on which something went wrong: nobody waits long for a peer that does not read."""
        if self._finished:
            return
        self._write_out()
        transport = self._transport
        if transport is not None and not transport.is_closing():
            last = self._carriage.close()
            if last:
                transport.write(last)
            transport.close()
            self._leaving = asyncio.get_running_loop().call_later(PATIENCE, transport.abort)
        self._finish(reason)

    def abort(self, reason: str) -> None:
        """End the connection at once: what was not written yet is lost."""
        if self._transport is not None:
            self._transport.abort()
        self._finish(reason)

    # --- writing

    def _on_output(self) -> None:
        if not self._enrolled:
            self._enrolled = True
            if self._crowded():
                self._batch.add_later(self)
            else:
                self._batch.add(self)

    def flush(self) -> None:
        """Write what the link has committed, all in one. What is left then has its turn after everybody else's."""
        self._enrolled = False
        if not self._finished:
            self._write_out()
        if self._link is not None and self._link.unfinished and not self._enrolled and not self._finished:
            self._enrolled = True
            self._batch.add_later(self)

    def _write_out(self) -> None:
        link, transport = self._link, self._transport
        if link is None or link.paused or transport is None or transport.is_closing() or not self._carriage.open:
            return
        pieces = link.take()
        if pieces and self._carriage.open:
            transport.write(self._carriage.wrap(pieces))
