"""Which Status a failure becomes: of a head, of an exchange, of the stub. One table each; what is missing there is
internal.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import status as kinds
from gateway.status import CONTENT_TYPE, Failure
from stub.errors import AgentSilent, Draining, NoAgent, SessionOverloaded, StubError, Unheld
from stub.peers.errors import PeerGone, PeerUnready
from tunnel.errors import ExchangeReset, HeadError, Hop, Reason
from tunnel.ports import Headers

_HOPS = {
    Hop.GATEWAY: kinds.GATEWAY,
    Hop.STUB: kinds.STUB,
    Hop.AGENT: kinds.AGENT,
    Hop.APISERVER: kinds.APISERVER,
    Hop.CLIENT: "client",
}
_HEADS = {
    400: kinds.BAD_REQUEST,
    408: kinds.REQUEST_TIMEOUT,
    413: kinds.TOO_LARGE,
    414: kinds.URI_TOO_LONG,
    431: kinds.HEADERS_TOO_LARGE,
}
_RESETS = {
    Reason.UNREACHABLE: kinds.APISERVER_UNREACHABLE,
    Reason.TLS: kinds.APISERVER_UNREACHABLE,
    Reason.TIMEOUT: kinds.APISERVER_TIMEOUT,
    Reason.BAD_RESPONSE: kinds.APISERVER_BAD_ANSWER,
    Reason.UPSTREAM_CLOSED: kinds.APISERVER_BAD_ANSWER,
    Reason.REFUSED_HEAD: kinds.AGENT_REFUSED,
    Reason.PROTECTED_IDENTITY: kinds.AGENT_REFUSED,
    Reason.POLICY: kinds.AGENT_REFUSED,
    Reason.TOO_LARGE: kinds.TOO_LARGE,
    Reason.OVERLOADED: kinds.TOO_MANY_REQUESTS,
    Reason.DRAINING: kinds.OVERLOADED,
    Reason.STALE_EPOCH: kinds.OVERLOADED,
    Reason.LINK_LOST: kinds.AGENT_LOST,
    Reason.UNACKNOWLEDGED: kinds.AGENT_TIMEOUT,
}
_SPECIAL = {
    (Hop.STUB, Reason.UNREACHABLE): kinds.NO_AGENT,
    (Hop.STUB, Reason.TIMEOUT): kinds.AGENT_TIMEOUT,
    (Hop.STUB, Reason.UNACKNOWLEDGED): kinds.AGENT_SILENT,
    (Hop.CLIENT, Reason.TIMEOUT): kinds.REQUEST_TIMEOUT,
    (Hop.CLIENT, Reason.REFUSED_HEAD): kinds.BAD_REQUEST,
    (Hop.GATEWAY, Reason.CANCELLED): kinds.FORBIDDEN,
}
_STUB: dict[type[StubError], tuple[Failure, int | None]] = {
    # No Retry-After with NoAgent: client-go would repeat ten times before its user learns that the cluster is cut off.
    NoAgent: (kinds.NO_AGENT, None),
    AgentSilent: (kinds.AGENT_SILENT, None),
    SessionOverloaded: (kinds.TOO_MANY_REQUESTS, 1),
    Draining: (kinds.OVERLOADED, 1),
    Unheld: (kinds.MOVING, 1),
    PeerGone: (kinds.MOVING, 1),
    PeerUnready: (kinds.MOVING, 1),
}
_NAMES_CLUSTER = (kinds.AGENT_LOST, kinds.AGENT_TIMEOUT, kinds.NO_AGENT, kinds.AGENT_SILENT, kinds.MOVING)


@dataclass(slots=True)
class Answer:
    """An answer that the gateway gives by itself."""

    code: int
    headers: Headers
    body: bytes
    message: str = ""
    """What the body says, for clients that do not read it."""

    def warn(self) -> None:
        """Say it in a header, too (see gateway.status)."""
        self.headers.append((b"warning", kinds.warning(self.message)))


class Refused(Exception):
    """The request ends here, with this failure."""

    def __init__(self, failure: Failure, detail: str = "", retry_after: int | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.detail = detail
        self.retry_after = retry_after

    def answer(self, audit_id: str) -> Answer:
        """The Status, and the headers that go with it."""
        headers: Headers = [(b"content-type", CONTENT_TYPE)]
        if self.retry_after is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after))
        if self.failure.code == 401:
            headers.append((b"www-authenticate", b'Bearer realm="kulvert"'))
        body = self.failure.body(audit_id, self.detail, self.retry_after)
        return Answer(self.failure.code, headers, body, self.failure.text(self.detail))


def of_head(refused: HeadError, audit_id: str) -> Answer:
    """The answer to what is no request, or only half of one."""
    failure = _HEADS.get(refused.status)
    if failure is not None:
        return Refused(failure, str(refused)).answer(audit_id)
    text = f"Kulvert's gateway refuses this request: {refused}"
    body = kinds.status(refused.status, "BadRequest", text, kinds.GATEWAY, audit_id)
    return Answer(refused.status, [(b"content-type", CONTENT_TYPE)], body, text)


def of_stub(error: StubError) -> Refused:
    """The stub opened nothing."""
    failure, retry_after = _STUB.get(type(error), (kinds.OVERLOADED, None if error.left else 1))
    return Refused(failure, error.cluster if failure in _NAMES_CLUSTER else error.message, retry_after)


def of_reset(error: ExchangeReset, cluster: str, audit_id: str) -> Answer:
    """An exchange ended before its answer began. Never with Retry-After: the head may have arrived."""
    failure = _SPECIAL.get((error.hop, error.reason)) or _RESETS.get(error.reason, kinds.INTERNAL_ERROR)
    detail = cluster if failure in _NAMES_CLUSTER else error.message
    message = failure.message.replace("{}", detail)
    body = kinds.status(failure.code, failure.reason, message, _HOPS[error.hop], audit_id)
    return Answer(failure.code, [(b"content-type", CONTENT_TYPE)], body, message)
