"""One request's way through the gateway, and every way in which it can end.

The pipeline fills in what it decides; the exchange calls `on_*` (see `gateway.answering`); the connection is told what
to write and when the answer is complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.answering import Answering
from gateway.delimiting import Delimiting
from gateway.downstreamhead import REASONS
from gateway.failures import Refused
from gateway.ports import Client, Outcome, Owner
from gateway.websocketfarewell import GRACE
from gateway.withdrawal import Withdrawal
from tunnel.errors import ExchangeReset, HeadError, Hop, Reason
from tunnel.head import RequestHead, render_response_head
from tunnel.limits import KIB
from tunnel.ports import Exchange, Headers

if TYPE_CHECKING:
    from auth.decision import Decision
    from auth.identity import Identity
    from tunnel.impersonate import Impersonation

KEPT: Final = 64 * KIB
"""Bytes of a body that are kept until it is answered: nearly all that Kubernetes' clients write are shorter."""


class Passage(Answering):
    """See above. The connection makes one for each request."""

    __slots__ = (
        "allowed", "audited", "cluster", "decision", "error", "identity", "impersonated", "notes", "reason", "received",
        "request_bytes", "started", "tries", "whole",
    )  # fmt: skip

    def __init__(self, client: Client, owner: Owner, head: RequestHead, whole: bool) -> None:
        super().__init__(client, owner, head)
        self.whole = whole
        """The body is known to have arrived with the head, so that an answer without an exchange can skip it."""
        self.request_bytes = self.tries = 0
        # What the pipeline decides, in its order.
        self.started = self.received = 0.0
        self.audited = True
        self.allowed = False
        self.reason = self.cluster = ""
        self.identity: Identity | None = None
        self.decision: Decision | None = None
        self.impersonated: Impersonation | None = None
        self.error: ExchangeReset | None = None
        self.notes: dict[str, str] | None = None
        """What the management application has for the audit record."""

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self._over

    @property
    def returnable(self) -> bool:
        """Nothing of the request is lost when another replica gives it back."""
        return self.head.framing.empty or (self.request_ended and self.kept is not None)

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

    # --- the connection's calls

    def sent(self, data: bytes) -> None:
        """Bytes of the body go to the exchange."""
        self.request_bytes += len(data)
        if self.kept is not None:
            self.kept += data
            if len(self.kept) > KEPT:
                self.kept = None

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

    # --- failures

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

    def fail(self, reason: Reason, message: str) -> None:
        """See gateway.answering."""
        self._cancel(Hop.GATEWAY, reason, message)
        self.on_reset(ExchangeReset(Hop.GATEWAY, reason, message))

    def bug(self) -> None:
        """Our own code failed on this request: it ends here, and the connection with it."""
        if not self._over:
            self.keep = False
            self.fail(Reason.INTERNAL, "internal error")

    # --- streams that may not go on

    def withdraw(self, refused: Refused) -> None:
        """Its user may not have this any more. A WebSocket's frame that has begun is ended first, if that is soon."""
        if self._over or self.leaving is not None:
            return
        withdrawal = Withdrawal.of(refused, self.audit_id)
        self.reason = withdrawal.reason
        if self.answered:
            self.leaving = withdrawal
            if self.hijack is not None and self.hijack.midway:
                self.client.withhold(GRACE)
            else:
                self.leave()
        else:
            answer = withdrawal.answer
            self._cancel(Hop.GATEWAY, Reason.CANCELLED, withdrawal.reason)
            self.answer(answer.code, answer.headers, answer.body)

    def leave(self) -> None:
        """See gateway.answering."""
        withdrawal, self.leaving = self.leaving, None
        if withdrawal is None or self._over:
            return
        words = self.hijack.words(withdrawal.answer) if self.hijack is not None else b""
        if words:
            self.client.write(words)
        self._cancel(Hop.GATEWAY, Reason.CANCELLED, withdrawal.reason)
        self.error = ExchangeReset(Hop.GATEWAY, Reason.CANCELLED, withdrawal.reason)
        if words:  # its client has time to read them, and to close
            self._end(Outcome.CUT)
            self.client.finished(keep=False, request_ended=False)
        else:
            self._cut()

    def conclude(self) -> None:
        """The server shuts down: end a watch between two events. Its client asks again from there, as it does when the
        API server's own timeout ends it.
        """
        if self._over or self.events is None or not self.events.look():
            return
        self._cancel(Hop.GATEWAY, Reason.CANCELLED, "the server is shutting down")
        self.on_end([])

    # --- the end

    def _began(self) -> None:
        self.owner.began(self)

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
