"""One user's connection: which bytes belong to which request, and in which order answers leave.

Its states, from request to request:

    head ─► body ─► holding ─► head …       a request, then its answer, then the next request
                       └─────► hijacked     after a 101
    any  ─► discarding ─► closed            an answer that ends the connection before the client has stopped sending

Bytes behind a request whose answer is not complete are held (`gateway.reading`), and so they are where the answer is
complete, but the transport full: the next request waits until the client has read (`gateway.writing`). Nothing is
parsed ahead: each request is routed and authenticated by itself, when its turn has come. How connections end is in
`gateway.closing`.

`Expect: 100-continue` is answered here, when the exchange is open; it does not travel, and an upstream's own 100 is
dropped. Trailers of a request are read and dropped. HTTP/1.0 clients get one answer for each connection.
"""

from __future__ import annotations

import asyncio
from typing import cast

from gateway.closing import Closing
from gateway.door import Door
from gateway.passage import Passage
from gateway.peer import Peer
from gateway.reading import NEVER
from tunnel.body import Body, body_for
from tunnel.errors import HeadError
from tunnel.head import FramingKind, RequestHead, RequestReader
from tunnel.sockets import end_after_bytes

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_UNTOLD = 0.5
"""Seconds for the next request of a client that was not told of the end: its next answer does."""


class ClientConnection(Closing, asyncio.Protocol):
    """The state machine of one connection."""

    __slots__ = ("_between", "_body", "_known", "_reader", "draining", "peer")

    def __init__(self, door: Door) -> None:
        super().__init__(door)
        self._reader = RequestReader(door.limits.head)
        self._state = ClientConnection._head
        self._body: Body | None = None
        self._known = False
        """A request of this connection was authenticated."""
        self._between = door.timeouts.head
        """Patience with the next request: little with strangers."""
        self.draining = False
        self.peer = Peer("", None)

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

    # --- states: each takes bytes and returns what it leaves to the next one

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
        self.deadline = NEVER
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

    def _hijacked(self, data: bytes) -> bytes:
        passage = self.passage
        assert passage is not None
        if passage.tap is None or passage.shown(data):
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

    # --- what the passage calls (gateway.ports.Client)

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
        self._enter(ClientConnection._hijacked, NEVER)

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
            self._forget()
        elif keep:
            skip = not request_ended and self._body is not None
            if not skip:
                self._body = None
            if self._stalled:
                self._await_room(self._between)
            else:
                patience = self._between if not self.draining else min(self._between, _UNTOLD)
                self._enter(ClientConnection._skipping if skip else ClientConnection._head, patience)
        elif request_ended and not self._held:
            self.close()
        else:
            self._body = None
            self._linger()

    def room(self) -> None:
        """See gateway.writing: the turn of the next request, or of what is left of this one's body."""
        if self._awaits_room:
            self._full = False
            self._enter(ClientConnection._head if self._body is None else ClientConnection._skipping, self._between)

    # --- what the door calls

    def expired(self) -> None:
        """The sweep found that the deadline has passed."""
        self.deadline = NEVER
        passage = self.passage
        if self._ending:
            self._tail()
        elif passage is None:
            if self._state is ClientConnection._head and self._reader.held:
                self._refuse(HeadError("the request's head did not arrive in time", 408))
            else:
                self.close()
        elif passage.leaving is not None:
            passage.leave()
        elif self._state is not ClientConnection._reading_body:
            self.abort()
            if self._done:
                self._forget()
        elif not self._full:
            passage.broken(HeadError("the request's body made no progress", 408))

    def recheck(self) -> None:
        """May this connection's stream go on?"""
        if self.passage is not None:
            self._door.overseer.look(self.passage)

    def conclude(self) -> None:
        """The server shuts down: a watch ends where it does no harm."""
        if self.passage is not None:
            self.passage.conclude()

    def drain(self) -> None:
        """Close when idle, else after the current answer."""
        self.draining = True
        if self.passage is None and not self._reader.held:
            self.close()

    @property
    def leaving(self) -> bool:
        """The answer that begins now is the last."""
        return self._door.leaving

    # --- the rest

    def _forget(self) -> None:
        self._door.forget(self)

    def _send(self, passage: Passage, data: bytes) -> None:
        passage.sent(data)
        if passage.exchange is not None and not passage.exchange.send_data(data) and self.passage is passage:
            self._full = True
            self._pace()

    def _body_done(self, passage: Passage) -> None:
        self._body = None
        self._state = ClientConnection._holding
        self.deadline = NEVER
        passage.request_ended = True
        if passage.exchange is not None:
            passage.exchange.send_end()

    def _refuse(self, refused: HeadError) -> None:
        self.write(self._door.handler.refusal(self.peer, refused))
        self._linger()
