"""The agent's own check of every request head. It trusts no gateway: whoever got hold of the link must not
get the agent's rights.

An impersonating proxy fails open, since a head without a valid Impersonate-User runs as the proxy itself.
So nothing is repaired here: what a right gateway never sends is refused, as a whole. The agent's token is
added to what this module returned, and to nothing else; never to a pass-through, which has a credential of its own
and no impersonation.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from typing import Final

from agent.policyrules import PolicyRules, Refusal
from tunnel.block import FORBIDDEN_IN_PASS_THROUGH, FORBIDDEN_IN_REQUESTS
from tunnel.errors import Reason, TunnelError
from tunnel.headcheck import FIELD, VCHAR
from tunnel.impersonate import Impersonation, ImpersonationRefused, checked_impersonation, read_impersonation
from tunnel.known import KnownLines
from tunnel.limits import HeadLimits
from tunnel.ports import Headers, RequestBlock

METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
UPGRADES: Final = frozenset((b"spdy/3.1", b"websocket"))
MAX_LENGTH_DIGITS: Final = 18
_NAMES: Final = b":!#$%&'*+-.^_`|~" + string.digits.encode() + string.ascii_lowercase.encode()
_BEARER: Final = re.compile(rb"[Bb]earer [A-Za-z0-9._~+/-]{1,16384}=*")
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
    """What this cluster's owner allows, whatever a gateway says: exact names of protected users and groups, rules for
    what may be asked (None: none), and whether service accounts of this cluster may come with their own tokens.
    """

    allow_protected: frozenset[str] = frozenset()
    limits: HeadLimits = field(default_factory=HeadLimits)
    rules: PolicyRules | None = None
    allow_pass_through: bool = False


@dataclass(slots=True)
class CheckedRequest:
    """A head that may be sent with the agent's own credential, or, as a `pass_through`, with the one that is among its
    headers. `length` is None where chunks will tell.
    """

    method: bytes
    target: bytes = field(repr=False)
    headers: Headers = field(repr=False)
    upgrade: bytes | None
    length: int | None
    """How long the body is; 0 where there is none."""
    known: KnownLines | None = field(default=None, repr=False)
    """All headers behind the first one, an audit-id, where they are remembered."""
    pass_through: bool = False


def checked(head: RequestBlock, policy: LocalPolicy) -> CheckedRequest:
    """The request, if all of it is in order.

    :raises HeadRefused: REFUSED_HEAD for a malformed head or a foreign credential, PROTECTED_IDENTITY for an
        identity that the local policy does not allow, POLICY for what its rules forbid.
    """
    _check_line(head.method, head.target, policy.limits)
    if policy.rules is not None:
        _allowed(policy.rules.of_request(head.method, head.target, head.upgrade))
    if head.known is None:
        return _checked(head, policy)
    key = (id(policy), head.upgrade, head.ended, head.pass_through)
    found = head.known.derived.get(key)
    if found is None:
        found = head.known.derived[key] = _checked(head, policy)
    return CheckedRequest(
        head.method, head.target, head.headers, found.upgrade, found.length, head.known, found.pass_through
    )


def _checked(head: RequestBlock, policy: LocalPolicy) -> CheckedRequest:
    """All but the request line, which the same headers may follow again: this holds for any."""
    headers = head.headers
    names = [name for name, _ in headers]
    _check_names(names, policy.limits, FORBIDDEN_IN_PASS_THROUGH if head.pass_through else FORBIDDEN_IN_REQUESTS)
    if b"".join([value for _, value in headers]).translate(None, FIELD):
        raise HeadRefused("a header's value holds a control character")
    if head.pass_through:
        _check_credential(headers, policy)
    else:
        _check_identity(headers, policy)
    upgrade = _upgrade(headers, names, head.upgrade)
    length = _length(headers, names, head, upgrade)
    return CheckedRequest(head.method, head.target, headers, upgrade, length, pass_through=head.pass_through)


def _check_line(method: bytes, target: bytes, limits: HeadLimits) -> None:
    if method not in METHODS:
        raise HeadRefused("an unknown method")
    if target[:1] != b"/" or b"#" in target or target.translate(None, VCHAR) or len(target) > limits.target_bytes:
        raise HeadRefused("a target that is not a path")


def _allowed(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise HeadRefused(str(refusal), Reason.POLICY)


def _check_names(names: list[bytes], limits: HeadLimits, forbidden: frozenset[bytes]) -> None:
    """All names together, since C loops faster than Python."""
    joined = b":" + b":".join(names)
    if joined.translate(None, _NAMES) or joined.count(b":") != len(names) or b"::" in joined or joined[-1:] == b":":
        raise HeadRefused("a malformed header name")
    if len(names) > limits.headers:
        raise HeadRefused("too many headers")
    if not forbidden.isdisjoint(names):
        raise HeadRefused("a header that does not belong between stub and agent")
    if _CREDENTIALS.search(joined):
        raise HeadRefused("a header that carries another identity or credential")


def _check_identity(headers: Headers, policy: LocalPolicy) -> None:
    try:
        checked_impersonation(headers, policy.allow_protected)
    except ImpersonationRefused:
        raise _refused_identity(headers) from None
    if policy.rules is not None and policy.rules.names_identities:
        wanted: Impersonation = read_impersonation(headers)
        _allowed(policy.rules.of_identity(wanted.user, wanted.groups))


def _check_credential(headers: Headers, policy: LocalPolicy) -> None:
    """One bearer token and nobody to be instead: then the API server knows its own service account, or refuses."""
    if not policy.allow_pass_through:
        raise HeadRefused("this cluster's agent passes no tokens of service accounts through", Reason.POLICY)
    if any(name[:11] == b"impersonate" for name, _ in headers):
        raise HeadRefused("an Impersonate header beside a credential of the user's own")
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1 or not _BEARER.fullmatch(found[0]):
        raise HeadRefused("not exactly one bearer token")


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
