"""The head of an answer as a user's connection gets it: a cluster's headers, without those that would speak for others.

With routing by path all clusters share the gateway's origin in a browser, and a user's connection may carry one
cluster's answer after another's. So whatever outlives its answer, or speaks for the whole origin, stays behind:

- `Set-Cookie` never passes by path (the other clusters' applications would get it); by host it passes from `*/proxy`
  alone, and never with a Domain. `Cookie` is treated likewise on the way up (gateway.upstreamhead).
- `Strict-Transport-Security`, `Alt-Svc`, `Clear-Site-Data`, `Service-Worker-Allowed`, reporting and pinning headers
  never.
- `Location` passes if it stays within the same cluster (CVE-2022-3172): see `location`.

Framing headers are the connection's own: the caller says how the body will be delimited.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from gateway.route import Route
from tunnel.head import render_response_head
from tunnel.ports import Headers, ResponseBlock

REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
_HOP_BY_HOP = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"http2-settings", b"content-length",
))  # fmt: skip
_AMBIENT = frozenset((
    b"strict-transport-security", b"alt-svc", b"alt-used", b"clear-site-data", b"service-worker-allowed", b"nel",
    b"report-to", b"reporting-endpoints", b"public-key-pins", b"public-key-pins-report-only", b"origin-trial",
    b"expect-ct", b"set-cookie2", b"refresh", b"content-location",
))  # fmt: skip
_OURS = frozenset((b"audit-id",))
_HANDLED = _HOP_BY_HOP | _AMBIENT | _OURS | {b"location", b"set-cookie"}
_NOT_IN_TRAILERS = _HANDLED | {
    b"date",
    b"authorization",
    b"www-authenticate",
    b"content-type",
    b"content-encoding",
    b"host",
}


def render_answer(block: ResponseBlock, route: Route, proxied: bytes, own: Headers, date: bytes) -> bytes:
    """The head's bytes. `own` are the gateway's headers (framing, Audit-Id, Connection), `proxied` the raw path
    prefix of a `*/proxy` request, or empty. Raises HeadError where a header cannot be written."""
    headers: Headers = []
    dated = False
    for pair in block.headers:
        name = pair[0]
        if name in _HANDLED:
            if (kept := _handled(pair, route, proxied)) is not None:
                headers.append(kept)
            continue
        if name == b"date":
            dated = True
        headers.append(pair)
    if not dated:
        headers.append((b"date", date))
    headers += own
    return render_response_head(block.status, REASONS.get(block.status, b""), headers)


def trailers_of(trailers: Headers) -> Headers:
    """What of a cluster's trailers may follow a chunked body: nothing that means something in a head."""
    return [pair for pair in trailers if pair[0] not in _NOT_IN_TRAILERS]


def _handled(pair: tuple[bytes, bytes], route: Route, proxied: bytes) -> tuple[bytes, bytes] | None:
    name, value = pair
    if route.cluster is None:
        return None if name in _HOP_BY_HOP or name in _OURS else pair
    if name == b"location":
        kept = location(value, route, proxied)
        return None if kept is None else (name, kept)
    if name == b"set-cookie" and not route.by_path and proxied:
        return None if b"domain" in value.lower().replace(b" ", b"") else pair
    return None


def location(value: bytes, route: Route, proxied: bytes = b"") -> bytes | None:
    """The Location that leads back to the same cluster, as an absolute path behind the route's prefix, or None.

    A relative one is resolved here: a client at `/clusters/A` would take it for a neighbour of A. A URL
    (kube-apiserver writes its own host into those of proxied applications) is cut to its path if that lies below the
    same `*/proxy` prefix. Anything that could be resolved out of the cluster is dropped: another host, `//`,
    backslashes, dot segments.
    """
    path = value
    if b"://" in value.partition(b"?")[0]:
        host_and_path = value.split(b"://", 1)[1]
        path = host_and_path[host_and_path.find(b"/") :] if b"/" in host_and_path else b"/"
        if not proxied or not (path == proxied or path.startswith((proxied + b"/", proxied + b"?"))):
            return None
    if not _stays(path):
        return None
    if path[:1] != b"/":
        here = route.target.partition(b"?")[0]
        path = (here if path[:1] in b"?#" else here[: here.rfind(b"/") + 1]) + path
    return route.prefix + path


def _stays(path: bytes) -> bool:
    if not path or path.startswith(b"//") or not path.isascii() or any(octet < 0x21 or octet == 0x7F for octet in path):
        return False
    plain = unquote_to_bytes(path.partition(b"?")[0].partition(b"#")[0])
    if b"\\" in plain or b":" in plain.partition(b"/")[0]:
        return False
    return all(part.partition(b";")[0] not in (b".", b"..") for part in plain.split(b"/"))
