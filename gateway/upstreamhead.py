"""The head that goes to a cluster: what the client may say by header, what we say, and the impersonation last.

Plain resources, exec, attach and port-forward have an allow-list: a header that nobody thought of stays here. Behind a
`*/proxy` subresource stands an application with headers of its own, so there a deny-list decides. In both, hop-by-hop
headers and those that `Connection` names go first, and ours come after that: naming `Impersonate-User` in `Connection`
removes nothing of ours (CVE-2021-31999).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tunnel.head import FramingKind, RequestHead, connection_tokens
from tunnel.impersonate import Pairs
from tunnel.ports import Headers

ALLOWED = frozenset((
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language",
    b"content-type", b"content-encoding", b"content-language",
    b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since",
    b"if-range", b"range", b"cache-control",
    b"user-agent", b"kubectl-command", b"kubectl-session",
    b"x-stream-protocol-version",
    b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol", b"sec-websocket-extensions",
    b"traceparent", b"tracestate",
))  # fmt: skip
_OF_WEBSOCKETS = ALLOWED | {b"origin"}
"""kube-apiserver opens no WebSocket watch without an Origin."""
_DENIED = frozenset((
    b"authorization", b"host", b"content-length", b"expect", b"audit-id",
    b"forwarded", b"x-forwarded-for", b"x-real-ip",
    b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings",
))  # fmt: skip
_DENIED_PREFIXES = (b"impersonate", b"x-remote-", b"proxy-", b"x-kulvert-", b"x-forwarded-")
_BEARER = b"base64url.bearer.authorization.k8s.io."
_WS_PROTOCOL = b"sec-websocket-protocol"


@dataclass(slots=True)
class Inbound:
    """What of a client's headers goes on, and what of them asks for another identity."""

    headers: Headers
    impersonation: Headers
    """Everything that begins with `impersonate`, with underscores for dashes too, whatever follows."""


def sorted_once(head: RequestHead, proxied: bool, cookies: bool) -> Inbound:
    """`sort_headers`, remembered for a client that sends the same fields again."""
    key = (Inbound, proxied, cookies)
    inbound: Inbound | None = head.derived.get(key)
    if inbound is None:
        inbound = head.derived[key] = sort_headers(head, proxied, cookies)
    return inbound


def sort_headers(head: RequestHead, proxied: bool, cookies: bool) -> Inbound:
    """Take from a head what may go on. `cookies`: whether Cookie may, behind a proxy."""
    named = connection_tokens(head.headers) if head.get(b"connection") is not None else frozenset()
    allowed = ALLOWED if head.upgrade != b"websocket" else _OF_WEBSOCKETS
    kept: Headers = []
    asked: Headers = []
    for pair in head.headers:
        name = pair[0]
        if name[:11] == b"impersonate":
            asked.append(pair)
        elif name not in named and (name in allowed or (proxied and _passes(name, cookies))):
            if name != _WS_PROTOCOL:
                kept.append(pair)
            elif protocols := without_bearer(pair[1]):
                kept.append((name, protocols))
    return Inbound(kept, asked)


def upstream_headers(kept: Headers, head: RequestHead, address: str, audit_id: bytes, impersonation: Pairs) -> Headers:
    """Everything, in order: what differs from request to request first, the impersonation last."""
    headers = [(b"audit-id", audit_id), *kept]
    if head.framing.kind is FramingKind.LENGTH:
        headers.append((b"content-length", b"%d" % head.framing.length))
    if head.upgrade is not None:
        headers.append((b"upgrade", head.upgrade))
    if address:
        headers.append((b"x-forwarded-for", address.encode("ascii", "replace")))
    headers += impersonation
    return headers


def _passes(name: bytes, cookies: bool) -> bool:
    """Applications by CGI's and WSGI's rules read underscores as dashes, so both spellings count as one."""
    plain = name.replace(b"_", b"-")
    if plain == b"cookie" or plain == b"cookie2":
        return cookies
    return plain not in _DENIED and not plain.startswith(_DENIED_PREFIXES)


def without_bearer(value: bytes) -> bytes:
    """A list of subprotocols without those that hold a token, however they are spelt."""
    if _BEARER not in value.lower():
        return value
    return b", ".join(part for part in _protocols((value,)) if not part.lower().startswith(_BEARER))


def bearer_of(values: Iterable[bytes]) -> bytes | None:
    """The base64url text of the token in a client's subprotocols. Raises ValueError where there are two."""
    found = [part.removeprefix(_BEARER) for part in _protocols(values) if part.startswith(_BEARER)]
    if len(found) > 1:
        raise ValueError("two bearer tokens in Sec-WebSocket-Protocol")
    return found[0] if found else None


def _protocols(values: Iterable[bytes]) -> list[bytes]:
    return [part for value in values for raw in value.split(b",") if (part := raw.strip(b" \t"))]
