"""The agent's own check of every request head. It trusts no gateway: whoever got hold of the link must not
get the agent's rights.

An impersonating proxy fails open, since a head without a valid Impersonate-User runs as the proxy itself.
So nothing is repaired here: what a right gateway never sends is refused, as a whole. The agent's token is
added to what this module returned, and to nothing else.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from typing import Final

from tunnel.block import FORBIDDEN_IN_REQUESTS
from tunnel.errors import Reason, TunnelError
from tunnel.headcheck import FIELD, VCHAR
from tunnel.impersonate import ImpersonationRefused, checked_impersonation, read_impersonation
from tunnel.known import KnownLines
from tunnel.limits import HeadLimits
from tunnel.ports import Headers, RequestBlock

METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
UPGRADES: Final = frozenset((b"spdy/3.1", b"websocket"))
MAX_LENGTH_DIGITS: Final = 18
_NAMES: Final = b":!#$%&'*+-.^_`|~" + string.digits.encode() + string.ascii_lowercase.encode()
_BEARER_PROTOCOL: Final = b"base64url.bearer.authorization.k8s.io."
"""kube-apiserver takes a bearer token out of this websocket subprotocol, as it does out of Authorization."""
_CREDENTIALS: Final = re.compile(
    rb":(?:x[-_]remote[-_]|x-client-|x-ssl-|ssl-client|x-forwarded-(?:client-|tls-|user|groups|access-token)"
    rb"|x-arr-clientcert|x-auth-request-)"
)
"""Beginnings of names by which front proxies hand an identity or a client certificate on. A cookie is not
among them: kube-apiserver reads none, and applications behind `*/proxy` live by theirs.
"""


class HeadRefused(TunnelError):
    """This head does not go to the API server. The text names headers, never their values."""

    def __init__(self, message: str, reason: Reason = Reason.REFUSED_HEAD) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """What this cluster's owner allows, whatever a gateway says: exact names of protected users and groups."""

    allow_protected: frozenset[str] = frozenset()
    limits: HeadLimits = field(default_factory=HeadLimits)


@dataclass(slots=True)
class CheckedRequest:
    """A head that may be sent with the agent's own credential. `length` is None where chunks will tell."""

    method: bytes
    target: bytes = field(repr=False)
    headers: Headers = field(repr=False)
    upgrade: bytes | None
    length: int | None
    """How long the body is; 0 where there is none."""
    known: KnownLines | None = field(default=None, repr=False)
    """All headers behind the first one, an audit-id, where they are remembered."""


def checked(head: RequestBlock, policy: LocalPolicy) -> CheckedRequest:
    """The request, if all of it is in order.

    :raises HeadRefused: REFUSED_HEAD for a malformed head or a foreign credential, PROTECTED_IDENTITY for an
        identity that the local policy does not allow.
    """
    _check_line(head.method, head.target, policy.limits)
    if head.known is None:
        return _checked(head, policy)
    key = (id(policy), head.upgrade, head.ended)
    found = head.known.derived.get(key)
    if found is None:
        found = head.known.derived[key] = _checked(head, policy)
    return CheckedRequest(head.method, head.target, head.headers, found.upgrade, found.length, head.known)


def _checked(head: RequestBlock, policy: LocalPolicy) -> CheckedRequest:
    """All but the request line, which the same headers may follow again: this holds for any."""
    headers = head.headers
    names = [name for name, _ in headers]
    _check_names(names, policy.limits)
    if b"".join([value for _, value in headers]).translate(None, FIELD):
        raise HeadRefused("a header's value holds a control character")
    _check_identity(headers, policy.allow_protected)
    upgrade = _upgrade(headers, names, head.upgrade)
    return CheckedRequest(head.method, head.target, headers, upgrade, _length(headers, names, head, upgrade))


def _check_line(method: bytes, target: bytes, limits: HeadLimits) -> None:
    if method not in METHODS:
        raise HeadRefused("an unknown method")
    if target[:1] != b"/" or b"#" in target or target.translate(None, VCHAR) or len(target) > limits.target_bytes:
        raise HeadRefused("a target that is not a path")


def _check_names(names: list[bytes], limits: HeadLimits) -> None:
    """All names together, since C loops faster than Python."""
    joined = b":" + b":".join(names)
    if joined.translate(None, _NAMES) or joined.count(b":") != len(names) or b"::" in joined or joined[-1:] == b":":
        raise HeadRefused("a malformed header name")
    if len(names) > limits.headers:
        raise HeadRefused("too many headers")
    if not FORBIDDEN_IN_REQUESTS.isdisjoint(names):
        raise HeadRefused("a header that does not belong between stub and agent")
    if _CREDENTIALS.search(joined):
        raise HeadRefused("a header that carries another identity or credential")


def _check_identity(headers: Headers, allow: frozenset[str]) -> None:
    try:
        checked_impersonation(headers, allow)
    except ImpersonationRefused:
        raise _refused_identity(headers) from None


def _refused_identity(headers: Headers) -> HeadRefused:
    """Names that read well and were refused are protected ones."""
    try:
        read_impersonation(headers)
    except ImpersonationRefused:
        return HeadRefused("not exactly one valid Impersonate-User, or a malformed Impersonate header")
    message = "a protected identity, which this cluster's agent does not allow"
    return HeadRefused(message, Reason.PROTECTED_IDENTITY)


def _upgrade(headers: Headers, names: list[bytes], asked: bool) -> bytes | None:
    if b"sec-websocket-protocol" in names:
        _check_subprotocols(headers)
    found = names.count(b"upgrade")
    if found != asked:
        raise HeadRefused("an upgrade header without an upgrade, or none with one")
    if not asked:
        return None
    value = next(value for name, value in headers if name == b"upgrade").lower()
    if value not in UPGRADES:
        raise HeadRefused("an upgrade to something other than spdy/3.1 or websocket")
    return value


def _check_subprotocols(headers: Headers) -> None:
    for name, value in headers:
        if name == b"sec-websocket-protocol" and _BEARER_PROTOCOL in value.lower():
            raise HeadRefused("a bearer token among the websocket subprotocols")


def _length(headers: Headers, names: list[bytes], head: RequestBlock, upgrade: bytes | None) -> int | None:
    count = names.count(b"content-length")
    if not count:
        return 0 if head.ended or upgrade is not None else None
    value = next(value for name, value in headers if name == b"content-length")
    if count > 1 or not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        raise HeadRefused("a malformed or repeated content-length")
    length = int(value)
    if length and (head.ended or upgrade is not None):
        raise HeadRefused("a content-length where there is no body")
    return length
