"""One exchange at the agent: a request from the link, checked, to the API server; its answer, decoded,
back.

Both directions are pumped independently, by callbacks alone, and each waits for its own reader: request
bytes are `consumed` when the upstream transport has taken them, the upstream socket is paused while
`send_data` says so. What breaks off, breaks off loudly: an answer that is not whole ends in a RESET, never
in an END.
"""

from __future__ import annotations

from agent.answer import AnswerReader
from agent.outgoing import Outgoing
from agent.policy import CheckedRequest, HeadRefused, LocalPolicy, checked
from agent.pool import UpstreamPool
from agent.request import BodyMismatch, render
from agent.upstream import UpstreamConnection
from tunnel.errors import ExchangeReset, HeadError, Hop, Reason
from tunnel.events import Events
from tunnel.ports import AgentExchange, Headers, RequestBlock
from tunnel.requestinfo import request_info

# The states. Plain integers: this is the hot path, and an enum member costs a lookup more.
_WAITING = 0  # no connection yet
_OPEN = 1  # request and answer are under way
_HIJACKED = 2  # a checked 101 was passed: opaque bytes both ways
_ANSWERED = 3  # our direction has ended; the rest of the request goes nowhere
_STOPPED = 4  # RESET, by whichever side

_SAFE = frozenset((b"GET", b"HEAD"))
PRIVILEGED = (
    "the agent knows itself to its API server by a client certificate, which would count more than the token of a"
    " service account: give the agent a token"
)


class Relay:
    """A `tunnel.ports.RequestSink` and an `agent.upstream.UpstreamUser`. Make it, then `start` it."""

    __slots__ = (
        "_answer", "_begun", "_connection", "_ended", "_events", "_exchange", "_outgoing", "_policy", "_pool",
        "_release_owed", "_replay", "_request", "_state", "endless",
    )  # fmt: skip

    def __init__(self, exchange: AgentExchange, pool: UpstreamPool, policy: LocalPolicy) -> None:
        self._exchange = exchange
        self._pool = pool
        self._policy = policy
        self._state = _WAITING
        self._connection: UpstreamConnection | None = None
        self._request: CheckedRequest | None = None
        self._answer: AnswerReader | None = None
        self._outgoing: Outgoing | None = None  # None: nothing follows the request's head
        self._events: Events | None = None  # of a watch, once it is answered
        self._begun = False  # the answer's final head was passed on
        self._ended = False  # the END of our direction was sent
        self._replay = False  # may be sent once more, on a fresh connection, if a kept one closes without a byte
        self._release_owed = False  # `released` is due when the connection is closed
        self.endless = False  # a watch, followed logs, an upgrade: its head may rightly take hours

    @property
    def unanswered(self) -> bool:
        """The API server owes an answer, and has not begun one."""
        return self._state <= _OPEN and not self._begun

    def start(self, head: RequestBlock) -> None:
        """Check the head, and take or wait for a connection. A refused head never gets near one."""
        try:
            request = self._request = checked(head, self._policy)
        except HeadRefused as refused:
            self._cancel(Hop.AGENT, refused.reason, f"the agent refused the request: {refused}")
            return
        if request.pass_through and not self._unprivileged():
            self._cancel(Hop.AGENT, Reason.POLICY, PRIVILEGED)
            return
        if not head.ended or request.upgrade is not None:
            self._outgoing = Outgoing(request.length)
            self.endless = request.upgrade is not None
        else:
            self.endless = head.long
            self._replay = request.method in _SAFE and b"/proxy" not in request.target
        self._acquire(fresh=False)

    def conclude(self) -> None:
        """The agent stops: a watch ends between two events, as it does when the API server's own timeout ends it. To be
        called again as long as it has not.
        """
        if self._state == _OPEN and self._events is not None and self._events.look():
            self._ended, self._state = True, _ANSWERED
            self._exchange.send_end()
            self._drop_connection()

    # --- from the link

    def on_data(self, data: bytes) -> None:
        """Body bytes, or a hijacked stream's."""
        if self._outgoing is None:
            return
        try:
            thrown = self._outgoing.take(data)
        except BodyMismatch as error:
            self._cancel(Hop.STUB, Reason.REFUSED_HEAD, str(error))
            return
        if thrown:
            self._exchange.consumed(thrown)

    def on_end(self, trailers: Headers) -> None:
        """The request is complete; of a hijacked stream: the client has gone, and its end is passed on
        after its bytes.
        """
        if self._outgoing is None:
            return
        if self._state <= _OPEN and self._request is not None and self._request.upgrade is not None:
            if self._begun:  # it was refused, and the answer that says so goes on
                return
            self._cancel(Hop.CLIENT, Reason.CANCELLED, "the client left before its upgrade was answered")
            return
        try:
            self._outgoing.end()
        except BodyMismatch as error:
            self._cancel(Hop.STUB, Reason.REFUSED_HEAD, str(error))
            return
        if self._state == _HIJACKED and self._connection is not None:
            self._connection.close()

    def on_reset(self, error: ExchangeReset) -> None:
        """The stub gives the exchange up."""
        self._stop()

    def on_writable(self) -> None:
        """The link takes bytes again."""
        if self._connection is not None:
            self._connection.resume()

    # --- from the pool and the connection

    def on_connected(self, connection: UpstreamConnection) -> None:
        """Send the head, and what was held until now."""
        request, access = self._request, self._pool.access
        assert request is not None
        self._connection = connection
        self._state = _OPEN
        self._replay = self._replay and connection.reused
        self._answer = AnswerReader(request, self._policy.limits)
        try:
            connection.write(render(request, access.server, access.authorization(self._pool.now())))
            if self._outgoing is not None and request.upgrade is None:
                self._outgoing.open(connection)
        except HeadError as error:
            self._cancel(Hop.AGENT, Reason.REFUSED_HEAD, f"the agent refused the request: {error}")
        except BodyMismatch as error:
            self._cancel(Hop.STUB, Reason.REFUSED_HEAD, str(error))

    def on_unavailable(self, error: ExchangeReset) -> None:
        """No connection, no answer."""
        self._cancel(error.hop, error.reason, error.message)

    def on_bytes(self, data: bytes) -> None:
        """A piece of the answer, or of a hijacked stream."""
        answer = self._answer
        if answer is None or self._state >= _ANSWERED:
            return
        try:
            payload = answer.feed(data)
        except HeadError as error:
            self._bad(str(error))
            return
        if answer.heads:
            self._send_heads(answer)
        if payload:
            self._send_payload(payload)
        if answer.done:
            self._answer_done(answer)

    def on_finished(self) -> None:
        """The API server ended the connection properly. Nothing is waited for: it would not read it."""
        answer = self._answer
        if answer is None or self._state >= _ANSWERED:
            return
        if self._state == _OPEN:
            try:
                answer.finish()
            except HeadError:
                self._drop_connection()  # `on_lost` follows, and knows what that means
                return
            self._answer_done(answer)
        else:
            self._hijack_ended()
            self._drop_connection()

    def on_lost(self) -> None:
        """The connection is closed."""
        self._connection = None
        if self._release_owed:
            self._release()
        elif self._state == _HIJACKED:
            self._hijack_ended()
        elif self._state == _OPEN:
            self._lost_midway()

    def on_drained(self, count: int) -> None:
        """Request bytes have left this process."""
        self._exchange.consumed(count)

    # --- the way there

    def _unprivileged(self) -> bool:
        """Whether connections say nothing of who the agent is, so that a token alone decides about a request."""
        return self._pool.access.authorization(self._pool.now()) is not None

    def _acquire(self, *, fresh: bool) -> None:
        try:
            connection = self._pool.acquire(self, fresh)
        except ExchangeReset as error:
            self.on_unavailable(error)
            return
        if connection is not None:
            self.on_connected(connection)

    def _lost_midway(self) -> None:
        if self._answer is not None and self._answer.begun:
            self._bad("it broke off")
        elif self._replay:
            self._state = _WAITING
            self._acquire(fresh=True)
        else:
            message = "the API server closed the connection without an answer: whether it acted is unknown"
            self._cancel(Hop.APISERVER, Reason.UPSTREAM_CLOSED, message)

    # --- the way back

    def _send_heads(self, answer: AnswerReader) -> None:
        heads, answer.heads = answer.heads, []
        for head in heads:
            self._ended = head.ended
            self._begun = not head.interim
            self._exchange.send_response(head)
            if self.endless and not self._ended and self._is_watch():
                self._events = Events(head.headers)
        if answer.switched and self._state == _OPEN and self._connection is not None:
            self._state = _HIJACKED
            self._connection.allow_stall()
            if self._outgoing is not None:
                self._outgoing.switch(self._connection)

    def _is_watch(self) -> bool:
        request = self._request
        assert request is not None
        path, _, query = request.target.partition(b"?")
        upgrade = request.upgrade is not None
        return not upgrade and request_info(request.method.decode("ascii"), path, query).verb == "watch"

    def _send_payload(self, payload: list[bytes]) -> None:
        data = payload[0] if len(payload) == 1 else b"".join(payload)
        if self._events is not None:
            self._events.take(data)
        if not self._exchange.send_data(data) and self._connection is not None:
            self._connection.pause()

    def _answer_done(self, answer: AnswerReader) -> None:
        """The end is told first; then the connection is kept only if nothing of this exchange is left on
        it.
        """
        if not self._ended and self._state == _OPEN:
            self._ended = True
            self._exchange.send_end(answer.trailers())
        if self._state != _OPEN:  # the link failed while it was told
            return
        self._state = _ANSWERED
        connection, outgoing = self._connection, self._outgoing
        sent = outgoing is None or outgoing.ended
        if connection is not None and sent and answer.keep_alive and connection.settled:
            self._connection = None
            self._pool.release(connection)
        else:
            self._drop_connection()
        self._throw_away()

    def _hijack_ended(self) -> None:
        self._state = _ANSWERED
        self._exchange.send_end()
        self._throw_away()

    def _throw_away(self) -> None:
        """What the client still sends has no reader."""
        if self._outgoing is not None:
            thrown = self._outgoing.stop()
            if thrown:
                self._exchange.consumed(thrown)

    # --- ends

    def _bad(self, message: str) -> None:
        self._cancel(Hop.APISERVER, Reason.BAD_RESPONSE, f"the API server's answer: {message}")

    def _cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        self._exchange.cancel(hop, reason, message)
        self._stop()

    def _stop(self) -> None:
        """Nothing more goes either way. `released` comes when the connection is closed, which may be now."""
        if self._state == _WAITING:
            self._pool.forget(self)
        self._state = _STOPPED
        self._outgoing = None
        self._release_owed = True
        if self._connection is None:
            self._release()
        else:
            self._drop_connection()

    def _release(self) -> None:
        self._release_owed = False
        self._exchange.released()

    def _drop_connection(self) -> None:
        """Closed at once; `on_lost` comes from the loop, and clears it away."""
        if self._connection is not None:
            self._connection.abort()
