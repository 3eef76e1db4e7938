"""The sending half of an exchange: its queue, cut into slices, and the peer's credit (docs/protocol.md, 6 and 8).

What may go now goes straight to the link; the rest waits here for credit, for its turn, or for a MOVE that is under
way.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from tunnel.errors import ExchangeReset, Reason
from tunnel.frames import DATA, END, FLAG_END, FLAG_MORE, HEAD

if TYPE_CHECKING:
    from tunnel.link import Link
    from tunnel.mux import Mux

SMALL = 4096
"""Queued pieces are joined up to this size: a byte in each must cost no frame, and no object, for each."""


class Outgoing:
    """What one end sends of an exchange. `link` is where it goes."""

    granted: int
    """The peer's credit, which the receiving half keeps, and whose CREDIT frames go the same way."""
    sending_ended = False
    """Nothing more is taken: the end was said, or the exchange was RESET."""
    started = False
    """Its first frame was committed, so the peer knows it."""
    _sent_end = False
    _queue: deque[tuple[int, int, bytes]] | None = None
    _queued = 0
    _sent = 0
    _full = False
    _holding = False

    def __init__(self, mux: Mux, exchange_id: int, sink: Any) -> None:
        self.mux = mux
        self.id = exchange_id
        self.sink = sink
        self.link: Link = mux.shared
        self._limit = mux.peer_credit

    def send_head(self, flags: int, payload: bytes) -> None:
        """Send a head block, in fragments where it is long."""
        if self.sending_ended:
            return
        if len(payload) > self.mux.limits.head_block:
            self.fail(ExchangeReset(self.mux.hop, Reason.TOO_LARGE, "a head that is larger than the link takes"))
            return
        if flags & FLAG_END:
            self.sending_ended = True
        self._send(HEAD, flags, payload)

    def send_data(self, data: bytes) -> bool:
        """See `tunnel.ports.Exchange`."""
        if self.sending_ended or not data:
            return True
        size, link = len(data), self.link
        if not self._queue and size <= link.slice and self._sent + size <= self._limit and link.has_turn():
            self._sent += size
            link.emit(DATA, 0, self, data)
            return True
        self._queue_data(data)
        return not self._full

    def send_end(self, trailers: bytes = b"") -> None:
        """See `tunnel.ports.Exchange`."""
        if not self.sending_ended:
            self.sending_ended = True
            self._send(END, 0, trailers)

    # --- the queue

    def _send(self, kind: int, flags: int, payload: bytes) -> None:
        if not self._queue and not self._holding and self.link.has_turn():
            self._emit(kind, flags, payload)
        else:
            self._enqueue(kind, flags, payload)

    def _queue_data(self, data: bytes) -> None:
        queue = self._queue
        if queue and queue[-1][0] == DATA and len(queue[-1][2]) + len(data) <= SMALL:
            queue[-1] = (DATA, 0, b"".join((queue[-1][2], data)))
        else:
            self._enqueue(DATA, 0, data)
        self._queued += len(data)
        if self._queued >= self.mux.limits.send_queue:  # and so until `_pull_data` has told `writable`
            self._full = True
        if self._sent + self._queued > self._limit:
            self.starving()

    def _enqueue(self, kind: int, flags: int, payload: bytes) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append((kind, flags, payload))
        self._list()

    def _list(self) -> None:
        if self._sendable():
            self.link.enlist(self)

    def _sendable(self) -> bool:
        queue = self._queue
        return bool(queue) and not self._holding and (queue[0][0] != DATA or self._sent < self._limit)  # type: ignore[index]

    def credited(self, offset: int) -> bool:
        """The peer grants up to `offset`. False: that was nothing new."""
        if offset <= self._limit:
            return False
        self._limit = offset
        self._list()
        return True

    def hold(self) -> None:
        """Queue everything until a MOVE that is under way is settled."""
        self._holding = True

    def settle_move(self) -> None:
        """The MOVE is confirmed, declined or lost: what was held goes on, on the link that it has now."""
        self._holding = False
        self._list()

    # --- to the link

    def pull(self) -> bool:
        """Commit one slice of what is queued to the link. True: there is more that may be sent."""
        if self._queue is None or not self._sendable():
            return False
        kind, flags, payload = self._queue.popleft()
        if kind == DATA:
            self._pull_data(payload)
        else:
            self._emit(kind, flags, payload)
        return self._sendable()

    def _pull_data(self, payload: bytes) -> None:
        payload = self._slice(payload)
        self._sent += len(payload)
        self._queued -= len(payload)
        self.link.emit(DATA, 0, self, payload)
        if self._full and self._queued <= self.mux.limits.send_queue // 2:
            self._full = False
            self.writable()

    def _slice(self, payload: bytes) -> bytes:
        """As much as may go now. The rest is a view of what it was cut from, but not while it waits for credit."""
        size = min(len(payload), self.link.slice, self._limit - self._sent)
        if size == len(payload):
            return payload
        view = memoryview(payload)
        stays = self._sent + size == self._limit
        assert self._queue is not None
        self._queue.appendleft((DATA, 0, bytes(view[size:]) if stays else view[size:]))  # type: ignore[arg-type]
        return view[:size]  # type: ignore[return-value]

    def _emit(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == HEAD:
            self._emit_head(flags, payload)
            if not flags & FLAG_END:
                return
        elif payload or not self.link.end_last(self):
            self.link.emit(END, 0, self, payload)
        self._sent_end = True
        self.ended_sending()

    def _emit_head(self, flags: int, payload: bytes) -> None:
        step, link = self.mux.limits.data_slice, self.link
        if len(payload) <= step:
            link.emit(HEAD, flags, self, payload)
        else:
            for at in range(0, len(payload), step):
                more = FLAG_MORE if at + step < len(payload) else 0
                link.emit(HEAD, flags | more, self, payload[at : at + step])
            link.seal()
        if not self.started:
            self.started = True
            self.begun()

    def _drop(self) -> None:
        """Nothing more is sent, and nothing more is taken."""
        self.sending_ended = True
        self._queue = None
        self._queued = 0
        self._holding = False
        self.link.forget(self)

    # --- what the whole exchange adds

    def writable(self) -> None:
        """`send_data` takes bytes again."""
        raise NotImplementedError

    def starving(self) -> None:
        """More is queued than the credit covers."""
        raise NotImplementedError

    def begun(self) -> None:
        """The first head was committed."""
        raise NotImplementedError

    def ended_sending(self) -> None:
        """Our direction is complete."""
        raise NotImplementedError

    def fail(self, error: ExchangeReset) -> None:
        """Give the exchange up."""
        raise NotImplementedError
