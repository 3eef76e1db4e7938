"""One user's connection: which bytes belong to which request, and in which order answers leave.

The current state is the function that takes the next bytes; it returns what it did not use, for the state that follows:

    head ─► body ─► holding ─► head …       a request, then its answer, then the next request
                       └─────► hijacked     after a 101
    any  ─► discarding ─► closed            an answer that ends the connection before the client has stopped sending

Bytes behind a request whose answer is not complete are held, 64 KiB and one read at most; then the socket is paused. So
it is where the answer is complete, but the transport full: the next request waits until the client has read.
Nothing is parsed ahead: each request is routed and authenticated by itself, when its turn has come.

`Expect: 100-continue` is answered here, when the exchange is open; it does not travel, and an upstream's own 100 is
dropped. Trailers of a request are read and dropped. HTTP/1.0 clients get one answer for each connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias, cast

from gateway.door import Door
from gateway.passage import Passage
from gateway.peer import Peer
from gateway.tcpinfo import tcp_info
from gateway.writing import Writing
from tunnel.body import Body, body_for
from tunnel.errors import HeadError
from tunnel.head import FramingKind, RequestHead, RequestReader
from tunnel.sockets import end_after_bytes

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER = float("inf")
_UNTOLD = 0.5
"""Seconds for the next request of a client that was not told of the end: its next answer does."""


class ClientConnection(Writing, asyncio.Protocol):
    """The state machine of one connection."""

    __slots__ = (
        "_acked", "_between", "_body", "_discarded", "_done", "_door", "_ending", "_full", "_held", "_known", "_left",
        "_reader", "_since", "_state", "deadline", "draining", "passage", "peer", "reading",
    )  # fmt: skip

    def __init__(self, door: Door) -> None:
        super().__init__(door.batch)
        self._door = door
        self._reader = RequestReader(door.limits.head)
        # Not a bound method: the cycle would keep every connection until the garbage collector runs.
        self._state: _State = ClientConnection._head
        self._body: Body | None = None
        self._held = b""
        self._discarded = 0
        self._full = self._done = False
        self._known = False
        """A request of this connection was authenticated."""
        self._between = door.timeouts.head
        """Patience with the next request: little with strangers."""
        self._left = False
        """The peer has ended its side, behind bytes of a hijacked stream that were not read yet."""
        self._ending = False
        self._acked, self._since = -1, door.now
        self.reading = True
        self.deadline = _NEVER
        self.draining = False
        self.passage: Passage | None = None
        self.peer = Peer("", None)

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self._door.limits.write_buffer)
        end_after_bytes(transport)
        if not self._door.admit(self):
            self._state = ClientConnection._drop
            self.transport.abort()
            return
        self.peer = Peer.of(transport)
        self.deadline = self._door.now + self._door.timeouts.head

    def data_received(self, data: bytes) -> None:
        with self._door.batch:
            self._input(data)

    def eof_received(self) -> bool:
        """A client that has ended its side waits for no answer: TLS transports know no half-close."""
        with self._door.batch:
            self._gone(clean=True)
            if self.passage is None:
                self._end()  # the event loop closes by itself
        return False

    def connection_lost(self, error: Exception | None) -> None:
        with self._door.batch:
            self._gone(clean=error is None)
            self._done = True
            self._state = ClientConnection._drop
            self._held = b""
            self.dead()
            if self.passage is None:
                self._door.forget(self)

    # --- states: each takes bytes and returns what it leaves to the next one

    def _input(self, data: bytes) -> None:
        """Run bytes through the states. Answers that complete in here change the state; the loop goes on with it."""
        while data:
            data = self._state(self, data)
            if data and self.passage is None:
                self.relieve(self._door.limits.write_buffer)

    def _head(self, data: bytes) -> bytes:
        reader = self._reader
        if not reader.held:
            self.deadline = self._door.now + self._door.timeouts.head
        try:
            head = reader.feed(data)
        except HeadError as refused:
            self._refuse(refused)
            return b""
        return b"" if head is None else self._begin(head, reader.rest)

    def _begin(self, head: RequestHead, rest: bytes) -> bytes:
        """One request's turn: hand it over; what follows its head stays here until an exchange takes it."""
        self.deadline = _NEVER
        framing = head.framing
        if framing.empty:
            self._body, whole = None, True
        else:
            self._body = body_for(framing, self._door.limits.head)
            whole = framing.kind is FramingKind.LENGTH and len(rest) >= framing.length
        passage = self.passage = Passage(self, self._door.handler, head, whole)
        self._state = ClientConnection._holding
        self._door.handler.serve(passage)
        return rest

    def _reading_body(self, data: bytes) -> bytes:
        passage, body = self.passage, self._body
        assert passage is not None
        assert body is not None
        self.deadline = self._door.now + self._door.timeouts.progress
        try:
            pieces = body.feed(data)
        except HeadError as refused:
            passage.broken(refused)
            return b""
        if pieces:
            # Joined: a client's chunks of one byte must not become frames of one byte.
            self._send(passage, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if not body.done:
            return b""
        if self.passage is passage:
            self._body_done(passage)
        return body.rest

    def _holding(self, data: bytes) -> bytes:
        self._held += data
        self._pace()
        return b""

    def _hijacked(self, data: bytes) -> bytes:
        passage = self.passage
        assert passage is not None
        self._send(passage, data)
        return b""

    def _tapped(self, data: bytes) -> bytes:
        passage = self.passage
        assert passage is not None
        assert passage.tap is not None
        if passage.seen(passage.tap.from_client, data):
            self._send(passage, data)
        return b""

    def _skipping(self, data: bytes) -> bytes:
        """The body of a request that was answered without it, and is known to be here whole."""
        body = self._body
        assert body is not None
        body.feed(data)
        if body.done:
            self._state, self._body = ClientConnection._head, None
        return body.rest

    def _discarding(self, data: bytes) -> bytes:
        """The answer is out and ends the connection; closing before the client has stopped sending could lose it."""
        self._discarded += len(data)
        if self._discarded > self._door.limits.discarded:
            self.close()
        return b""

    def _drop(self, data: bytes) -> bytes:
        return b""

    # --- what the passage calls (gateway.passage.Client)

    def proceed(self) -> None:
        """The exchange is open: let the body go to it."""
        passage = self.passage
        if self._body is None or passage is None:
            return
        if passage.head.expect_continue and not passage.whole and not self._held:
            self.write(_CONTINUE)
        self._enter(ClientConnection._reading_body, self._door.timeouts.progress)

    def hijack(self) -> None:
        """A checked 101: bytes are opaque from here on, those that came early too."""
        tapped = self.passage is not None and self.passage.tap is not None
        self._enter(ClientConnection._tapped if tapped else ClientConnection._hijacked, _NEVER)

    def withhold(self, patience: float) -> None:
        """The stream is being ended: what its client sends goes nowhere. `Passage.leave` is called after a while."""
        self._state, self._held = ClientConnection._drop, b""
        self.deadline = min(self.deadline, self._door.now + patience)
        self._full = False
        self._pace()

    def writable(self) -> None:
        """The exchange takes bytes again."""
        self._full = False
        if self._body is not None:
            self.deadline = self._door.now + self._door.timeouts.progress
        elif self._left:
            self.deadline = self._door.now + self._door.timeouts.flush
        self._pace()

    def finished(self, *, keep: bool, request_ended: bool) -> None:
        """The answer is complete. `keep`: the next request may come; else flush, and close."""
        if not self._known and self.passage is not None and self.passage.identity is not None:
            self._known, self._between = True, self._door.timeouts.idle
        self.passage = None
        self.forgive()
        self._full = False
        if self._done:
            self._door.forget(self)
        elif keep:
            skip = not request_ended and self._body is not None
            if not skip:
                self._body = None
            if self._stalled:
                self._await_room()
            else:
                patience = self._between if not self.draining else min(self._between, _UNTOLD)
                self._enter(ClientConnection._skipping if skip else ClientConnection._head, patience)
        elif request_ended and not self._held:
            self.close()
        else:
            self._linger()

    def cut(self, *, clean: bool) -> None:
        """End the connection in mid-answer. Not `clean`: without TLS's farewell, where nothing else shows the cut."""
        self.passage = None
        self._state = ClientConnection._drop
        if self._done:
            self._door.forget(self)
        elif clean:
            self.close()
        else:
            self.transport.abort()

    # --- what the writing half calls

    def room(self) -> None:
        """See gateway.writing: the next request's turn, if it waited for room."""
        if self._full and self.passage is None and self._state is ClientConnection._holding:
            self._full = False
            self._enter(ClientConnection._head if self._body is None else ClientConnection._skipping, self._between)

    def close(self) -> None:
        """Close when everything has been written, however slowly it is read: see `_tail`."""
        if not self._ending:
            self._end()
            super().close()

    # --- what the door calls

    def expired(self) -> None:
        """The sweep found that the deadline has passed."""
        self.deadline = _NEVER
        passage = self.passage
        if self._ending:
            self._tail()
        elif passage is None:
            held = self._state is ClientConnection._head and self._reader.held
            if held:
                self._refuse(HeadError("the request's head did not arrive in time", 408))
            else:
                self.close()
        elif passage.leaving is not None:
            passage.leave()
        elif self._state is not ClientConnection._reading_body:
            self.abort()
            if self._done:
                self._door.forget(self)
        elif not self._full:
            passage.broken(HeadError("the request's body made no progress", 408))

    def look(self) -> None:
        """Nothing is read: has the client ended meanwhile? Its FIN is behind bytes that nobody takes.

        It waits for no answer then, see `eof_received`. But the last bytes of a hijacked stream go on, as they do when
        its end was read; so they have `flush` for each time that there is room for more of them.
        """
        if self._ending or self._left or (info := tcp_info(self.transport)) is None or not info.ended:
            return
        passage = self.passage
        if info.reset:
            self.abort()
        elif passage is None:
            self.close()
        elif not passage.hijacked:
            self.abort()
        else:
            self._left = True
            self.deadline = self._door.now + self._door.timeouts.flush

    def recheck(self) -> None:
        """May this connection's stream go on?"""
        if self.passage is not None:
            self._door.handler.recheck(self.passage)

    def conclude(self) -> None:
        """The server shuts down: a watch ends where it does no harm."""
        if self.passage is not None:
            self.passage.conclude()

    def drain(self) -> None:
        """Close when idle, else after the current answer."""
        self.draining = True
        if self.passage is None and not self._reader.held:
            self.close()

    def abort(self) -> None:
        """End now."""
        passage, self.passage = self.passage, None
        self._state = ClientConnection._drop
        if passage is not None:
            passage.abandoned()
        self.transport.abort()

    @property
    def leaving(self) -> bool:
        """The answer that begins now is the last."""
        return self._door.leaving

    # --- the rest

    def _enter(self, state: _State, patience: float) -> None:
        """Change the state, and give it what was held. (Within `_input` nothing is held.)"""
        self._state = state
        self.deadline = self._door.now + patience
        held, self._held = self._held, b""
        self._pace()
        if held:
            self._input(held)

    def _await_room(self) -> None:
        """The next request (or what is left of this one's body) waits until the client has read: `room`."""
        self._state = ClientConnection._holding
        self._full = True
        self.deadline = self._door.now + self._between
        self._pace()

    def _end(self) -> None:
        self._ending = True
        self._state, self._held = ClientConnection._drop, b""
        self.deadline = self._door.now

    def _tail(self) -> None:
        """Closing: bytes may be on their way to somebody who reads slowly. Each look asks what the kernel got rid of.

        (uvloop tells of no progress: its TLS buffer leads into another one that has no name, and that into the socket.)
        """
        now, timeouts = self._door.now, self._door.timeouts
        info = tcp_info(self.transport)
        acked = 0 if info is None else info.acked
        if acked != self._acked:
            self._acked, self._since = acked, now
        everything = info is not None and not info.pending
        if now - self._since >= (timeouts.linger if everything else timeouts.tail):
            self.transport.abort()
        else:
            self.deadline = now

    def _send(self, passage: Passage, data: bytes) -> None:
        passage.sent(data)
        if passage.exchange is not None and not passage.exchange.send_data(data) and self.passage is passage:
            self._full = True
            self._pace()

    def _body_done(self, passage: Passage) -> None:
        self._body = None
        self._state = ClientConnection._holding
        self.deadline = _NEVER
        passage.request_ended = True
        if passage.exchange is not None:
            passage.exchange.send_end()

    def _pace(self) -> None:
        """Read the socket, or do not: what is full (exchange, transport), or bytes that nobody takes yet, stop it."""
        reading = not self._full and len(self._held) <= self._door.limits.held
        if reading is not self.reading and not self.transport.is_closing():
            self.reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _refuse(self, refused: HeadError) -> None:
        self.write(self._door.handler.refusal(self.peer, refused))
        self._linger()

    def _linger(self) -> None:
        self._body, self._held = None, b""
        self._state = ClientConnection._discarding
        self.deadline = self._door.now + self._door.timeouts.linger
        self._pace()

    def _gone(self, *, clean: bool) -> None:
        passage = self.passage
        if passage is None:
            return
        if passage.leaving is not None or not (passage.hijacked and clean):
            self.passage = None
            self._state = ClientConnection._drop
            passage.abandoned()
        elif self._state is not ClientConnection._drop and passage.exchange is not None:
            # The client's last bytes are still on their way upstream: end that direction, and wait a bounded time.
            self._state = ClientConnection._drop
            self.deadline = self._door.now + self._door.timeouts.flush
            passage.request_ended = True
            passage.exchange.send_end()


_State: TypeAlias = Callable[[ClientConnection, bytes], bytes]
