"""One link, sans-IO: frames out of bytes, and a bounded, fair order of what is written (docs/protocol.md, 8 and 9).

What is in `_out` is committed: its order is the order on the wire. Control frames are committed at once; the data of
exchanges only while there is room, by turns, so that neither bulk transfers nor stalled readers delay anybody's RESET
or CREDIT.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tunnel import frames
from tunnel.errors import ProtocolError
from tunnel.frames import CONTROL, DATA, FLAG_END, HEAD, HEADER, HEADER_SIZE, OFFSET, FrameReader, encode
from tunnel.limits import LinkLimits

if TYPE_CHECKING:
    from tunnel.exchange import TunnelExchange
    from tunnel.fragments import Fragments
    from tunnel.outgoing import Outgoing


class Receiver(Protocol):
    """Who handles the frames of a link: the session's multiplexer."""

    def handle(self, link: Link, kind: int, flags: int, exchange: int, payload: bytes) -> None:
        """Handle one frame. Raises ProtocolError, which ends the link."""


class Link:
    """One connection's frames. `on_output` is called once when there is something to `take`."""

    def __init__(self, receiver: Receiver, *, own: bool, link_id: int = 0, limits: LinkLimits) -> None:
        self.receiver = receiver
        self.own = own
        self.id = link_id
        self.limits = limits
        self.slice = limits.frame_payload if own else limits.data_slice
        self.on_output: Callable[[], None] = lambda: None
        self.on_close: Callable[[str], None] = lambda _reason: None
        self.on_finish: Callable[[str], None] = lambda reason: self.on_close(reason)
        self.exchange: TunnelExchange | None = None
        self.tainted = False
        self.carried = 0
        self.closed = False
        self.paused = False
        self.paused_since: float | None = None
        self.heard = False
        self.on_heard: Callable[[], None] | None = None
        """Called before the frames of each read are handled."""
        self.begun: Fragments | None = None
        self._reader = FrameReader(limits.frame_payload)
        self._out: list[bytes] = []
        self._out_size = 0
        self._woken = False
        self._ready: OrderedDict[Outgoing, None] = OrderedDict()
        self._credits: dict[Outgoing, None] = {}
        self._pong = b""
        self._last: Outgoing | None = None
        self._last_frame = (0, 0, 0)
        self._useless = 0
        self._bound = limits.transport_buffer + limits.frame_payload + limits.control_queue

    # --- input

    def receive(self, data: bytes) -> None:
        """Handle bytes from the peer. Raises ProtocolError: the caller ends the link with `close`."""
        self.heard = True
        if self.on_heard is not None:
            self.on_heard()
        received = self._reader.feed(data)
        handle = self.receiver.handle
        for kind, flags, exchange, payload in received if len(received) < 3 else _coalesced(received):
            if self.closed:
                return
            handle(self, kind, flags, exchange, payload)

    def useful(self) -> None:
        """A frame had an effect, or a sweep begins to count anew."""
        self._useless = 0

    def useless(self) -> None:
        """A frame had none: a flood of those ends the link, since answering them would be all it does."""
        self._useless += 1
        if self._useless > self.limits.empty_frames:
            raise ProtocolError("too many frames without effect")

    # --- output

    def has_room(self) -> bool:
        """Whether data may be committed now."""
        return not self.paused and self._out_size < self.limits.transport_buffer

    def has_turn(self) -> bool:
        """Whether data may be committed now without overtaking another exchange."""
        return not self._ready and not self.paused and self._out_size < self.limits.transport_buffer

    def emit(self, kind: int, flags: int, exchange: Outgoing, payload: bytes) -> None:
        """Commit a HEAD, DATA or END frame of an exchange."""
        size = len(payload)
        self._out += (HEADER.pack(kind, flags, size, exchange.id), payload)
        self._out_size += HEADER_SIZE + size
        self.carried += size
        self._last = exchange
        self._last_frame = (kind, flags, size)
        if not self._woken:
            self._wake()

    def end_last(self, exchange: Outgoing) -> bool:
        """Put END on the last committed frame if it is this exchange's: a short answer then needs no frame for it."""
        kind, flags, size = self._last_frame
        if self._last is not exchange or not (kind == DATA or (kind == HEAD and flags == 0)):
            return False
        self._out[-2] = HEADER.pack(kind, flags | FLAG_END, size, exchange.id)
        self._last = None
        return True

    def seal(self) -> None:
        """The last committed frame stays as it is: all fragments of a head have the same flags."""
        self._last = None

    def control(self, kind: int, flags: int = 0, exchange: int = 0, payload: bytes = b"") -> None:
        """Commit a control frame. The link ends where the peer takes none of them."""
        if self.closed:
            return
        self._last = None
        self._out.append(encode(kind, flags, exchange, payload))
        self._out_size += HEADER_SIZE + len(payload)
        if self.paused and self._out_size > self._bound:
            self.close("the peer does not read its control frames")
        elif not self._woken:
            self._wake()

    def message(self, body: bytes) -> None:
        """Commit a control message (JSON)."""
        self.control(CONTROL, 0, 0, body)

    def credit(self, exchange: Outgoing) -> None:
        """Tell the peer an exchange's new credit with the next write; a newer one replaces it."""
        self._credits[exchange] = None
        if not self._woken:
            self._wake()

    def pong(self, payload: bytes) -> None:
        """Answer a PING with the next write; only the newest is answered."""
        self._pong = payload
        if not self._woken:
            self._wake()

    def enlist(self, exchange: Outgoing) -> None:
        """An exchange has something to send: it gets its turn."""
        self._ready[exchange] = None
        if not self._woken:
            self._wake()

    def forget(self, exchange: Outgoing) -> None:
        """Nothing more of an exchange goes out here."""
        self._ready.pop(exchange, None)
        self._credits.pop(exchange, None)

    def _wake(self) -> None:
        self._woken = True
        self.on_output()

    def take(self) -> list[bytes]:
        """All that may be written now. Call it when woken, and when the transport has room again."""
        self._woken = True
        if self._pong or self._credits:
            self._announce()
        if self._ready:
            self._pull()
            self._announce()
        self._woken = False
        pieces, self._out = self._out, []
        self._out_size = 0
        self._last = None
        return pieces

    def _announce(self) -> None:
        if self._pong:
            self._out.append(encode(frames.PONG, 0, 0, self._pong))
            self._pong = b""
        for exchange in self._credits:
            self._out.append(encode(frames.CREDIT, 0, exchange.id, OFFSET.pack(exchange.granted)))
        self._credits.clear()
        self._last = None

    def _pull(self) -> None:
        ready = self._ready
        while ready and self.has_room():
            exchange, _ = ready.popitem(last=False)
            if exchange.pull():
                ready[exchange] = None

    def resume(self) -> None:
        """The transport has room again."""
        self.paused = False
        self.paused_since = None
        self._woken = False
        if not self.idle:
            self._wake()

    @property
    def unfinished(self) -> bool:
        """Whether more may be taken at once: somebody else's turn of the loop comes between."""
        return bool(self._ready) and not self.paused

    @property
    def idle(self) -> bool:
        """Whether there is nothing to write, now or later."""
        return not (self._out or self._ready or self._credits or self._pong)

    @property
    def backlog(self) -> int:
        """Bytes committed and not taken."""
        return self._out_size

    def close(self, reason: str) -> None:
        """End the link, on which something went wrong; the adapter closes its connection, and tells the session."""
        if not self.closed:
            self.closed = True
            self.on_close(reason)

    def finish(self, reason: str) -> None:
        """End the link, whose work is done: what it has committed arrives first, however long that takes."""
        if not self.closed:
            self.closed = True
            self.on_finish(reason)


def _coalesced(received: list[frames.Frame]) -> list[frames.Frame]:
    """Neighbouring DATA frames of one exchange as one: a byte a frame must not become a write a byte further on."""
    merged: list[frames.Frame] = []
    run: list[bytes] = []
    for index, frame in enumerate(received):
        following = received[index + 1] if index + 1 < len(received) else None
        joins = following and following.type == DATA == frame.type and following.exchange == frame.exchange
        if joins and frame.payload and following and following.payload and not frame.flags & FLAG_END:
            run.append(frame.payload)
            continue
        if run:
            frame = frame._replace(payload=b"".join([*run, frame.payload]))
            run = []
        merged.append(frame)
    return merged
