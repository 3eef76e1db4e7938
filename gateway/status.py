"""Failures that Kulvert itself makes, as Kubernetes `Status` objects: kubectl prints their message.

Each names, in `details.causes`, the hop that failed and the audit id. An answer of the API server is never
turned into one. Source: k8s.io/apimachinery `meta/v1` Status; reasons are Kubernetes' own, since clients
decide by them.

kubectl's discovery, which comes first in a fresh cache, reads no Status (client-go's `Result.Raw`; tried
with 1.36): its user would read "unknown". It does print `Warning` headers, so there the message goes along
as one: see `needs_warning`. `kubectl auth whoami` has words of its own for every 403, too.

`Retry-After` goes only with failures of which nothing had left the stub: client-go replays any verb on it,
a POST too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

CONTENT_TYPE: Final = b"application/json"
GATEWAY: Final = "gateway"
STUB: Final = "stub"
AGENT: Final = "agent"
APISERVER: Final = "apiserver"
_MAX_MESSAGE: Final = 1024
_UNREAD: Final = frozenset({
    b"/api", b"/apis", b"/version", b"/version/", b"/apis/authentication.k8s.io/v1/selfsubjectreviews",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failure. `message` says who failed and what to do next; `{}` in it is the detail of the
    case.

    `retryable`: nothing has left the stub yet, so a Retry-After may go with it.
    """

    code: int
    reason: str
    hop: str
    message: str
    retryable: bool = False

    def body(self, audit_id: str, detail: str = "", retry_after: int | None = None) -> bytes:
        """The Status, for one case. :raises ValueError: a retry is offered where one could do a thing twice."""
        if retry_after is not None and not self.retryable:
            raise ValueError("Retry-After is only for failures of which nothing left the stub")
        return status(self.code, self.reason, self.text(detail), self.hop, audit_id, retry_after)

    def text(self, detail: str = "") -> str:
        """The message for one case: for the Status, the audit record, and a warning where `needs_warning`."""
        return self.message.replace("{}", detail)


def warning(message: str) -> bytes:
    """A message as the value of a Warning header, as kube-apiserver writes its own (RFC 7234, section 5.5)."""
    text = _printable(message).encode("ascii", "replace").decode()
    return b'299 - "%b"' % text.replace("\\", "\\\\").replace('"', '\\"').encode()


def needs_warning(path: bytes) -> bool:
    """Whether clients ask for this upstream path in a way that loses the Status of a failure."""
    return path in _UNREAD or path.startswith(b"/openapi/")


def status(code: int, reason: str, message: str, hop: str, audit_id: str, retry_after: int | None = None) -> bytes:
    """A v1 Status in JSON, whatever the request accepts: every Kubernetes client reads it, and so do
    people.

    Messages are cut to a length and to printable characters, since a detail may come from a peer.
    """
    details: dict[str, object] = {
        "causes": [{"reason": "Hop", "message": hop}, {"reason": "AuditID", "message": audit_id}],
    }
    if retry_after is not None:
        details["retryAfterSeconds"] = retry_after
    return orjson.dumps(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": _printable(message),
            "reason": reason,
            "details": details,
            "code": code,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def _printable(text: str) -> str:
    cut = text[:_MAX_MESSAGE]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "�" for c in cut)


UNAUTHENTICATED: Final = Failure(
    401, "Unauthorized", GATEWAY,
    "Kulvert's gateway does not know you: {}; check the credentials in your kubeconfig",
)  # fmt: skip
AUTHENTICATION_UNAVAILABLE: Final = Failure(
    503, "ServiceUnavailable", GATEWAY,
    "Kulvert's gateway cannot find out just now who you are or what you may do: {}; try again", True,
)  # fmt: skip
FORBIDDEN: Final = Failure(
    403, "Forbidden", GATEWAY,
    "Kulvert's gateway does not let you do this: {}; ask who keeps its grants",
)  # fmt: skip
CLUSTER_NOT_FOUND: Final = Failure(
    404, "NotFound", GATEWAY,
    "Kulvert's gateway knows no cluster {}; check the server URL in your kubeconfig",
)  # fmt: skip
PATH_NOT_FOUND: Final = Failure(
    404, "NotFound", GATEWAY,
    "Kulvert's gateway serves nothing at this path; the URL of a cluster is https://GATEWAY/clusters/NAME",
)  # fmt: skip
BAD_REQUEST: Final = Failure(
    400, "BadRequest", GATEWAY,
    "Kulvert's gateway refuses this request: {}",
)  # fmt: skip
REQUEST_TIMEOUT: Final = Failure(
    408, "Timeout", GATEWAY,
    "Kulvert's gateway got no whole request in time; send it again",
)  # fmt: skip
TOO_LARGE: Final = Failure(
    413, "RequestEntityTooLarge", GATEWAY,
    "Kulvert's gateway refuses this body: {}",
)  # fmt: skip
URI_TOO_LONG: Final = Failure(
    414, "BadRequest", GATEWAY,
    "Kulvert's gateway refuses this request: its URL is too long; shorten selectors",
)  # fmt: skip
UPGRADE_REFUSED: Final = Failure(
    400, "BadRequest", GATEWAY,
    "Kulvert's gateway refuses this upgrade: {}; only SPDY/3.1 and WebSocket without a body are passed on",
)  # fmt: skip
TOO_MANY_REQUESTS: Final = Failure(
    429, "TooManyRequests", GATEWAY,
    "Kulvert's gateway has too many requests of yours, or for this cluster, at once: {}; try again later",
    retryable=True,
)  # fmt: skip
HEADERS_TOO_LARGE: Final = Failure(
    431, "BadRequest", GATEWAY,
    "Kulvert's gateway refuses this request: its headers are too large; shorten cookies or tokens",
)  # fmt: skip
INTERNAL_ERROR: Final = Failure(
    500, "InternalError", GATEWAY,
    "Kulvert's gateway failed; tell its operators the audit id",
)  # fmt: skip
AUDIT_UNAVAILABLE: Final = Failure(
    503, "ServiceUnavailable", GATEWAY,
    "Kulvert's gateway cannot write its audit log, so it lets nothing through; tell its operators",
    retryable=True,
)  # fmt: skip
OVERLOADED: Final = Failure(
    503, "ServiceUnavailable", GATEWAY,
    "Kulvert's gateway is overloaded or shutting down; try again",
    retryable=True,
)  # fmt: skip
NOT_KEPT: Final = Failure(
    504, "Timeout", GATEWAY,
    "Kulvert's gateway has made this change, but the other replicas may not have it yet: {}; look before you repeat it",
)  # fmt: skip
OVERRULED: Final = Failure(
    409, "Conflict", GATEWAY,
    "Kulvert's gateway has not made this change: {}",
)  # fmt: skip
MOVING: Final = Failure(
    503, "ServiceUnavailable", STUB,
    "No agent of cluster {} is to be reached just now, since another replica of Kulvert takes over;"
    " try again in a few seconds",
    retryable=True,
)  # fmt: skip
NO_AGENT: Final = Failure(
    503, "ServiceUnavailable", STUB,
    "No agent of cluster {} is connected to Kulvert; check the agent's pod and its way out of that cluster",
    retryable=True,
)  # fmt: skip
AGENT_SILENT: Final = Failure(
    503, "ServiceUnavailable", AGENT,
    "The agent of cluster {} is connected to Kulvert, but does not answer;"
    " the request was not sent: check the agent's pod",
    retryable=True,
)  # fmt: skip
AGENT_LOST: Final = Failure(
    502, "InternalError", STUB,
    "The agent of cluster {} was lost in mid-request;"
    " whether the request took effect is unknown: look before you repeat it",
)  # fmt: skip
AGENT_TIMEOUT: Final = Failure(
    504, "Timeout", STUB,
    "The agent of cluster {} did not answer in time;"
    " whether the request took effect is unknown: look before you repeat it",
)  # fmt: skip
AGENT_REFUSED: Final = Failure(
    403, "Forbidden", AGENT,
    "The agent refuses this request by its own policy: {}; ask who runs that cluster",
)  # fmt: skip
APISERVER_UNREACHABLE: Final = Failure(
    503, "ServiceUnavailable", AGENT,
    "The agent cannot reach its API server: {}; check that cluster's control plane",
)  # fmt: skip
APISERVER_BAD_ANSWER: Final = Failure(
    502, "InternalError", APISERVER,
    "The API server's answer broke off or was malformed: {}; whether the request took effect is unknown",
)  # fmt: skip
APISERVER_TIMEOUT: Final = Failure(
    504, "Timeout", APISERVER,
    "The API server did not answer in time; whether the request took effect is unknown: look before you repeat it",
)  # fmt: skip

FAILURES: Final = (
    UNAUTHENTICATED,
    AUTHENTICATION_UNAVAILABLE,
    FORBIDDEN,
    CLUSTER_NOT_FOUND,
    PATH_NOT_FOUND,
    BAD_REQUEST,
    REQUEST_TIMEOUT,
    TOO_LARGE,
    URI_TOO_LONG,
    UPGRADE_REFUSED,
    TOO_MANY_REQUESTS,
    HEADERS_TOO_LARGE,
    INTERNAL_ERROR,
    AUDIT_UNAVAILABLE,
    OVERLOADED,
    NOT_KEPT,
    OVERRULED,
    MOVING,
    NO_AGENT,
    AGENT_SILENT,
    AGENT_LOST,
    AGENT_TIMEOUT,
    AGENT_REFUSED,
    APISERVER_UNREACHABLE,
    APISERVER_BAD_ANSWER,
    APISERVER_TIMEOUT,
)
