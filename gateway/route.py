"""Which cluster a request is for, and what is asked of it: decided from one parse of the client's own bytes.

`/clusters/NAME/…` and `NAME.DOMAIN` lead to a cluster; everything else is management. What goes upstream is the rest
of the target, byte for byte. Nothing is ever decoded and used decoded, so no two parsers can disagree about a path
that was let through: a path that another parser might read otherwise is refused (CVE-2026-66794 and its family,
shared/threats).

Plain API paths may hold no percent-encoded `/`, `.`, `\\` or NUL, no `;`, no empty and no dot segments. Behind a
`*/proxy` subresource an application's own paths begin, where encoded slashes, `;` and `//` are ordinary; dot
segments, `\\` and NUL are refused there too, since they lead out of the proxied prefix.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tunnel.errors import HeadError

_PREFIX = b"/clusters/"
_NAME = re.compile(rb"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_PLAIN = b"!$&'()*+,-./:=@_~" + (string.digits + string.ascii_letters).encode()
"""What ordinary paths are made of: unreserved characters, and the sub-delims that names of Kubernetes use."""
_VISIBLE = re.compile(rb"[!-~]+", re.ASCII)
_PROXY = re.compile(
    rb"/(?:api/v1|apis/[^/]+/[^/]+)/(?:namespaces/[^/]+/)?(?!namespaces/|watch/|proxy/)[^/%]+/[^/]+/proxy(?=/|$)"
)


@dataclass(slots=True)
class Route:
    """Where a request goes. `cluster` is None for management; `target` is what goes there, the client's own bytes."""

    cluster: str | None
    target: bytes
    prefix: bytes
    """What was cut off the target (`/clusters/NAME`), to be put before Locations that come back; empty by host."""

    @property
    def by_path(self) -> bool:
        """Whether the browser sees one origin for all clusters."""
        return bool(self.prefix)


class Router:
    """Routes by path, and by host below `domain` where one is configured (it must not be the gateway's own parent
    domain).
    """

    __slots__ = ("_suffix",)

    def __init__(self, domain: str = "") -> None:
        self._suffix = b"." + domain.strip(".").lower().encode("ascii") if domain else b""

    def route(self, target: bytes, host: bytes) -> Route:
        """Decide. Raises HeadError (400) for what no honest client sends."""
        path = target.partition(b"?")[0]
        if path[:1] != b"/" or path.translate(None, _PLAIN) or b"//" in path or b"/." in path:
            _check_odd(path)
        if b"#" in target:
            raise HeadError("The request target has a fragment")
        if self._suffix:
            name = self._by_host(host)
            if name:
                return Route(name, target, b"")
        if path.startswith(_PREFIX):
            return _by_path(path, target)
        return Route(None, target, b"")

    def _by_host(self, host: bytes) -> str:
        name, _, port = host.lower().partition(b":")
        name = name.removesuffix(b".")
        if not name.endswith(self._suffix) or (port and not port.isdigit()):
            return ""
        return _cluster(name.removesuffix(self._suffix))


def proxied_prefix(target: bytes) -> bytes:
    """The raw path up to and with `…/proxy`, where an application's own paths begin behind it; else empty."""
    found = _PROXY.match(target.partition(b"?")[0])
    return found[0] if found else b""


def _by_path(path: bytes, target: bytes) -> Route:
    end = path.find(b"/", len(_PREFIX))
    end = len(path) if end < 0 else end
    rest = target[end:]
    return Route(_cluster(path[len(_PREFIX) : end]), rest if rest[:1] == b"/" else b"/" + rest, path[:end])


def _cluster(name: bytes) -> str:
    if not _NAME.fullmatch(name):
        raise HeadError("The cluster's name is not a DNS label")
    return name.decode("ascii")


def _check_odd(path: bytes) -> None:
    """Refuse an unusual path, unless nothing in it could be read in two ways."""
    if path[:1] != b"/" or not _VISIBLE.fullmatch(path):
        raise HeadError("The request target is not an absolute path of visible ASCII characters")
    inner = _PREFIX + path[len(_PREFIX) :].partition(b"/")[0] if path.startswith(_PREFIX) else b""
    api = path[len(inner) :]
    proxied = _PROXY.match(api)
    plain, free = (api[: proxied.end()], api[proxied.end() :]) if proxied else (api, b"")
    if b"%" in inner:
        raise HeadError("The cluster's name is not a DNS label")
    _check_segments(plain, strict=True)
    _check_segments(free, strict=False)


def _check_segments(raw: bytes, *, strict: bool) -> None:
    if re.search(rb"%(?![0-9A-Fa-f]{2})", raw):
        raise HeadError("The path has a broken percent-encoding")
    decoded = unquote_to_bytes(raw)
    if b"\\" in decoded or any(octet < 0x20 or octet == 0x7F for octet in decoded):
        raise HeadError("The path has a backslash or a control character")
    # Split at encoded slashes too, and drop a segment's parameters (`..;x`): some parser behind us might.
    if any(part.partition(b";")[0] in (b".", b"..") for part in decoded.split(b"/")):
        raise HeadError("The path has a dot segment")
    try:
        decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise HeadError("The path is not UTF-8") from None
    if strict:
        _check_strict(raw, decoded)


def _check_strict(raw: bytes, decoded: bytes) -> None:
    lowered = raw.lower()
    if b"%2f" in lowered or b"%25" in lowered or b"%2e" in lowered:
        raise HeadError("The path has an encoded slash, dot or percent sign")
    if b"//" in decoded or b";" in decoded:
        raise HeadError("The path has an empty segment or a semicolon")
