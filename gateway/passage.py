"""One request's way through the gateway, and the sink of its answer.

The pipeline fills in what it decides; the exchange calls `on_*`; the connection is told what to write and when the
answer is complete. The answer's framing is made anew here, and checked: a cluster can neither leave bytes on a user's
connection nor end an answer in a way that passes for whole when it is not.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from gateway.delimiting import Delimiting, delimit
from gateway.downstreamhead import REASONS, render_answer, trailers_of
from gateway.failures import Refused
from gateway.recording.streamtap import StreamTap, TapFailed
from gateway.websocketfarewell import GRACE, Farewell, farewell_of
from gateway.withdrawal import Withdrawal
from tunnel.body import LAST_CHUNK, chunk_head, encode_last_chunk
from tunnel.errors import ExchangeReset, HeadError, Hop, Reason
from tunnel.events import Events
from tunnel.head import RequestHead, render_response_head
from tunnel.limits import KIB
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseBlock

if TYPE_CHECKING:
    from auth.decision import Decision
    from auth.identity import Identity
    from gateway.peer import Peer
    from gateway.route import Route
    from tunnel.impersonate import Impersonation
    from tunnel.requestinfo import RequestInfo

KEPT: Final = 64 * KIB
"""Bytes of a body that are kept until it is answered: nearly all that Kubernetes' clients write are shorter."""


class Outcome(enum.Enum):
    """How a passage ended, for audit and metrics."""

    COMPLETE = "complete"
    CLIENT_GONE = "client-gone"
    CUT = "cut"


class Client(Protocol):
    """The connection, as its current passage sees it."""

    peer: Peer

    @property
    def leaving(self) -> bool: ...

    def write(self, data: bytes) -> None: ...
    def owe(self, count: int) -> None: ...
    def proceed(self) -> None: ...
    def hijack(self) -> None: ...
    def withhold(self, patience: float) -> None: ...
    def writable(self) -> None: ...
    def finished(self, *, keep: bool, request_ended: bool) -> None: ...
    def cut(self, *, clean: bool) -> None: ...


class Owner(Protocol):
    """Who serves passages: the pipeline."""

    date: bytes

    def reset(self, passage: Passage, error: ExchangeReset) -> None:
        """The exchange failed before an answer began: try again or answer with a Status."""

    def began(self, passage: Passage) -> None:
        """The head of a cluster's answer is on its way to the client."""

    def ended(self, passage: Passage, outcome: Outcome) -> None:
        """The passage is over: audit and count it. Called once."""


class Passage:
    """See above. The connection makes one for each request."""

    __slots__ = (
        "_left", "_mode", "_over", "agent", "allowed", "answered", "audit_id", "audited", "block", "client",
        "cluster", "code", "decision", "error", "events", "exchange", "farewell", "head", "hijacked", "identity",
        "impersonated", "info", "keep", "kept", "leaving", "notes", "owner", "proxied", "reason", "received",
        "request_bytes", "request_ended", "response_bytes", "route", "started", "tap", "tries", "whole",
    )  # fmt: skip

    def __init__(self, client: Client, owner: Owner, head: RequestHead, whole: bool) -> None:
        self.client = client
        self.owner = owner
        self.head = head
        self.whole = whole
        """The body is known to have arrived with the head, so that an answer without an exchange can skip it."""
        # An upgrade has no body, but its direction stays open for what follows a 101.
        self.request_ended = head.framing.empty and head.upgrade is None
        self.keep = head.keep_alive and head.version != b"1.0" and head.upgrade is None
        self.exchange: Exchange | None = None
        self.answered = self.hijacked = self._over = False
        self.code = self.request_bytes = self.response_bytes = self.tries = self._left = 0
        self._mode = Delimiting.NONE
        # What the pipeline decides, in its order.
        self.started = self.received = 0.0
        self.audited = True
        self.allowed = False
        self.reason = self.audit_id = self.cluster = self.agent = ""
        self.route: Route | None = None
        self.info: RequestInfo | None = None
        self.identity: Identity | None = None
        self.decision: Decision | None = None
        self.impersonated: Impersonation | None = None
        self.proxied = b""
        self.block: RequestBlock | None = None
        self.error: ExchangeReset | None = None
        self.notes: dict[str, str] | None = None
        """What the management application has for the audit record."""
        self.tap: StreamTap | None = None
        """Who looks on, should this become a hijacked stream."""
        self.farewell: Farewell | None = None
        self.events: Events | None = None
        """Of a watch, once it is answered."""
        self.kept: bytearray | None = None
        """The body so far, where another replica may still give the request back, having sent nothing of it."""
        self.leaving: Withdrawal | None = None
        """This stream is being ended: its client gets the rest of a message, and the cluster nothing more."""

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self._over

    # --- the pipeline's calls

    def opened(self, exchange: Exchange) -> None:
        """An exchange takes this request: the body may go to it. Again, if another replica gave it back."""
        self.exchange = exchange
        self.agent = exchange.agent
        if self.request_ended and self.kept is not None:
            if self.kept:
                exchange.send_data(bytes(self.kept))
            exchange.send_end()
            return
        if not self.agent and not self.request_ended and self.head.upgrade is None:
            self.kept = bytearray()
        self.client.proceed()

    @property
    def returnable(self) -> bool:
        """Nothing of the request is lost when another replica gives it back."""
        return self.head.framing.empty or (self.request_ended and self.kept is not None)

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """The gateway answers by itself. The body is whole, and left out for a HEAD."""
        self.code, self.answered = status, True
        ended = self.request_ended or (self.whole and self.exchange is None)
        self.keep = self.keep and ended
        own = [*headers, (b"content-length", b"%d" % len(body)), *self._own()]
        head = render_response_head(status, REASONS.get(status, b""), [*own, (b"date", self.owner.date)])
        if self.head.method != b"HEAD":
            head += body
            self.response_bytes = len(body)
        self.client.write(head)
        self._complete()

    # --- the exchange's calls

    def on_response(self, head: ResponseBlock) -> None:
        """See tunnel.ports.ResponseSink."""
        if self._over:
            return
        try:
            if head.interim:
                self._interim(head)
            elif head.upgrade:
                self._switch(head)
            else:
                self._final(head)
        except HeadError as error:
            self.fail(Reason.BAD_RESPONSE, f"the cluster's answer cannot be passed on: {error}")

    def on_data(self, data: bytes) -> None:
        """See tunnel.ports.ResponseSink."""
        if self._over:
            return
        mode, size, client = self._mode, len(data), self.client
        self.response_bytes += size
        if mode is Delimiting.LENGTH:
            self._left -= size
            if self._left < 0:
                self.fail(Reason.BAD_RESPONSE, "the answer is longer than its content-length")
                return
            client.write(data)
        elif mode is Delimiting.CHUNKED:
            if self.events is not None:
                self.events.take(data)
            client.write(chunk_head(size))
            client.write(data)
            client.write(b"\r\n")
        elif mode is Delimiting.NONE:
            self.fail(Reason.BAD_RESPONSE, "a body where there can be none")
            return
        else:
            if self.tap is not None and not self.seen(self.tap.from_cluster, data):
                return
            if self.leaving is not None:
                self._finish(data)
                return
            if self.farewell is not None:
                self.farewell.feed(data)
            client.write(data)
        client.owe(size)

    def on_end(self, trailers: Headers) -> None:
        """See tunnel.ports.ResponseSink."""
        if self._over:
            return
        if self._left or not self.answered:
            self.fail(Reason.BAD_RESPONSE, "the answer is shorter than its content-length, or has no head")
            return
        if self._mode is Delimiting.CHUNKED:
            self.client.write(self._last_chunk(trailers))
        elif self._mode is Delimiting.OPAQUE:
            self.keep = False
            if self.exchange is not None and not self.request_ended:
                self.request_ended = True
                self.exchange.send_end()
        self._complete()

    def on_reset(self, error: ExchangeReset) -> None:
        """See tunnel.ports.ResponseSink."""
        if self._over:
            return
        self.exchange = None
        if self.leaving is not None:
            self.leave()
            return
        self.error = error
        leaving = error.hop is Hop.STUB and error.reason is Reason.DRAINING
        if leaving and self.events is not None and not self.events.cut:
            self.on_end([])  # the replica that has the agents is shutting down, and ends watches as `conclude` does
        elif self.answered:
            self._cut()
        else:
            self.owner.reset(self, error)

    def on_writable(self) -> None:
        """See tunnel.ports.ResponseSink."""
        if not self._over:
            self.client.writable()

    # --- the connection's calls

    def sent(self, data: bytes) -> None:
        """Bytes of the body go to the exchange."""
        self.request_bytes += len(data)
        if self.kept is not None:
            self.kept += data
            if len(self.kept) > KEPT:
                self.kept = None

    def seen(self, look: Callable[[bytes], None], data: bytes) -> bool:
        """Shows opaque bytes to the tap, before they go on. False: they must not, and the stream was cut."""
        if self.hijacked:
            try:
                look(data)
            except TapFailed as failed:
                self.fail(Reason.CANCELLED, str(failed))
                return False
        return True

    def abandoned(self) -> None:
        """The client is gone: so is its exchange, at once."""
        if not self._over:
            self._cancel(Hop.CLIENT, Reason.CANCELLED, "the client closed its connection")
            self._end(Outcome.CLIENT_GONE)

    def broken(self, refused: HeadError) -> None:
        """The request's body is malformed or came too slowly: nothing of it may pass for complete upstream."""
        self._cancel(Hop.CLIENT, Reason.CANCELLED, str(refused))
        self.keep = False
        reason = Reason.TIMEOUT if refused.status == 408 else Reason.REFUSED_HEAD
        self.on_reset(ExchangeReset(Hop.CLIENT, reason, str(refused)))

    def fail(self, reason: Reason, message: str) -> None:
        """Give the exchange up from our side, and answer accordingly."""
        self._cancel(Hop.GATEWAY, reason, message)
        self.on_reset(ExchangeReset(Hop.GATEWAY, reason, message))

    def withdraw(self, refused: Refused) -> None:
        """Its user may not have this any more. A WebSocket's frame that has begun is ended first, if that is soon."""
        if self._over or self.leaving is not None:
            return
        withdrawal = Withdrawal.of(refused, self.audit_id)
        self.reason = withdrawal.reason
        if self.answered:
            self.leaving = withdrawal
            if self.farewell is not None and self.farewell.frames.midway:
                self.client.withhold(GRACE)
            else:
                self.leave()
        else:
            answer = withdrawal.answer
            self._cancel(Hop.GATEWAY, Reason.CANCELLED, withdrawal.reason)
            self.answer(answer.code, answer.headers, answer.body)

    def conclude(self) -> None:
        """The server shuts down: end a watch between two events. Its client asks again from there, as it does when the
        API server's own timeout ends it.
        """
        if self._over or self.events is None or not self.events.look():
            return
        self._cancel(Hop.GATEWAY, Reason.CANCELLED, "the server is shutting down")
        self.on_end([])

    def leave(self) -> None:
        """The end of a stream that is withdrawn, whether its last message is whole or not."""
        withdrawal, self.leaving = self.leaving, None
        if withdrawal is None or self._over:
            return
        answer = withdrawal.answer
        words = self.farewell.words(answer.body, answer.message) if self.farewell is not None else b""
        if words:
            self.client.write(words)
        self._cancel(Hop.GATEWAY, Reason.CANCELLED, withdrawal.reason)
        self.error = ExchangeReset(Hop.GATEWAY, Reason.CANCELLED, withdrawal.reason)
        if words:  # its client has time to read them, and to close
            self._end(Outcome.CUT)
            self.client.finished(keep=False, request_ended=False)
        else:
            self._cut()

    def bug(self) -> None:
        """Our own code failed on this request: it ends here, and the connection with it."""
        if not self._over:
            self.keep = False
            self.fail(Reason.INTERNAL, "internal error")

    # --- the answer

    def _interim(self, head: ResponseBlock) -> None:
        """Our own 100 Continue has been sent when the exchange was opened; 1.0 clients know no 1xx."""
        if head.status != 100 and self.head.version != b"1.0" and not self.answered and self.route is not None:
            self.client.write(render_answer(head, self.route, self.proxied, [], self.owner.date))

    def _switch(self, head: ResponseBlock) -> None:
        upgrade = self.head.upgrade
        theirs = [value for name, value in head.headers if name == b"upgrade"]
        if upgrade is None or self.answered or [value.lower() for value in theirs] != [upgrade]:
            raise HeadError("a 101 that was not asked for", 502)
        assert self.route is not None
        if self.tap is not None:
            self.tap.begin(head)
        own = [(b"connection", b"Upgrade"), (b"upgrade", theirs[0])]
        data = render_answer(head, self.route, self.proxied, own, self.owner.date)
        self.code, self.answered, self.hijacked = 101, True, True
        self.request_ended = False
        self._mode = Delimiting.OPAQUE
        if upgrade == b"websocket" and self.info is not None:
            self.farewell = farewell_of(self.info.subresource, head.headers)
        self._learn_agent()
        self.owner.began(self)
        self.client.write(data)
        self.client.hijack()

    def _final(self, head: ResponseBlock) -> None:
        if self.answered:
            raise HeadError("two answers to one request", 502)
        assert self.route is not None
        self.keep = self.keep and self.request_ended
        self._mode, self._left, framing = delimit(head, self.head.method, self.head.version)
        if self._mode is Delimiting.CLOSE:
            self.keep = False
        own = [*framing, *self._own()]
        data = render_answer(head, self.route, self.proxied, own, self.owner.date)
        self.code, self.answered, self.kept = head.status, True, None
        if self._mode is Delimiting.CHUNKED and self.info is not None and self.info.verb == "watch":
            self.events = Events(head.headers)
        if not head.ended:
            self.owner.began(self)
        self.client.write(data)
        if head.ended:
            self._complete()

    def _learn_agent(self) -> None:
        """Where another replica has the agents, its answer says which one it was."""
        if self.exchange is not None:
            self.agent = self.exchange.agent or self.agent

    def _own(self) -> Headers:
        own = [(b"audit-id", self.audit_id.encode("ascii"))] if self.audit_id else []
        if not self.keep or self.client.leaving:
            self.keep = False
            own.append((b"connection", b"close"))
        return own

    def _last_chunk(self, trailers: Headers) -> bytes:
        if not trailers:
            return LAST_CHUNK
        try:
            return encode_last_chunk(trailers_of(trailers))
        except HeadError:
            return LAST_CHUNK

    # --- the end

    def _complete(self) -> None:
        ended = self.request_ended
        if not ended:
            self._cancel(Hop.GATEWAY, Reason.STOPPED, "the answer ended before its request")
        self._end(Outcome.COMPLETE)
        self.client.finished(keep=self.keep, request_ended=ended)

    def _cut(self) -> None:
        """A close is seen as one where the framing shows what is missing; only a body until close needs more."""
        self._end(Outcome.CUT)
        self.client.cut(clean=self._mode is not Delimiting.CLOSE)

    def _finish(self, data: bytes) -> None:
        """The rest of a message, behind which there is a place for a farewell."""
        assert self.farewell is not None
        rest = data[: self.farewell.frames.finish(data)]
        self.response_bytes -= len(data) - len(rest)
        if rest:
            self.client.write(rest)
            self.client.owe(len(rest))
        if not self.farewell.frames.midway:
            self.leave()

    def _cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel(hop, reason, message)

    def _end(self, outcome: Outcome) -> None:
        self._over = True
        self.exchange = None  # it holds us as its sink
        if self.tap is not None:
            self.tap.end()
        self.owner.ended(self, outcome)
