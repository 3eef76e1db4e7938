"""First lines, and the few fields that steer a connection: what each of them may say, and what it means."""

from __future__ import annotations

from httptools import HttpRequestParser, HttpResponseParser

from tunnel.errors import HeadError
from tunnel.headcheck import TOKEN, VCHAR, Fields, options

BAD_ANSWER = 502
"""What a client is told when a server's head is refused."""
METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
"""What kube-apiserver's API and its proxies serve. TRACE would echo what the agent adds; CONNECT is a raw
pipe."""
VERSIONS = {b"HTTP/1.1": b"1.1", b"HTTP/1.0": b"1.0"}
_DIGITS = b"0123456789"
_HOST = b"-._~%:[]" + _DIGITS + bytes(range(65, 91)) + bytes(range(97, 123))
_PROTOCOL = b"/" + TOKEN
_REASON = b"\t " + VCHAR + bytes(range(0x80, 0x100))


def request_line(line: bytes, target_bytes: int) -> tuple[bytes, bytes, bytes]:
    """Method, target and version, one space between each (RFC 9112 §3). The origin form alone (§3.2.1) is
    served: what another form names could differ from Host. A fragment is no part of a target (RFC 9110
    §4.2.5)."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise HeadError("malformed request line")
    method, target, version = parts
    if len(target) > target_bytes:
        raise HeadError("request target too long", 414)
    if version not in VERSIONS:
        raise _bad_version(version)
    if method not in METHODS:
        raise HeadError("unknown method", 400 if method.translate(None, TOKEN) else 501)
    if target[:1] != b"/" or b"#" in target or target.translate(None, VCHAR):
        raise HeadError("request target is not a path")
    return method, target, VERSIONS[version]


def _bad_version(version: bytes) -> HeadError:
    if len(version) == 8 and version.startswith(b"HTTP/"):
        return HeadError("HTTP/1.1 and HTTP/1.0 only", 505)
    return HeadError("malformed request line")


def status_line(line: bytes) -> tuple[bytes, int, bytes]:
    """Version, three digits, and a reason that may be missing with its blank (RFC 9112 §4)."""
    version = VERSIONS.get(line[:8])
    code = line[9:12]
    if version is None or line[8:9] != b" " or line[12:13] not in (b"", b" "):
        raise HeadError("malformed status line", BAD_ANSWER)
    if len(code) != 3 or code.translate(None, _DIGITS) or code[0] == 48 or line.translate(None, _REASON):
        raise HeadError("malformed status line", BAD_ANSWER)
    return version, int(code), line[13:]


def host_of(host: bytes | None, old: bool) -> bytes | None:
    """RFC 9112 §3.2: exactly one Host, and a valid one; only HTTP/1.0 may go without."""
    if host is None and old:
        return None
    if not host or host.translate(None, _HOST):
        raise HeadError("missing or malformed Host")
    return host


def expects_continue(expect: bytes | None, old: bool) -> bool:
    """RFC 9110 §10.1.1: nothing but 100-continue is known; HTTP/1.0 does not wait for one."""
    if expect is None:
        return False
    if expect.lower() != b"100-continue":
        raise HeadError("an expectation other than 100-continue", 417)
    return not old


def connection_of(
    fields: Fields[HttpRequestParser] | Fields[HttpResponseParser], old: bool, refusal: int, status: int = 101
) -> tuple[bool, bytes | None]:
    """Whether the connection persists (RFC 9112 §9.3), and the protocol to change to (RFC 9110 §7.8).

    An Upgrade counts on a request and on a 101, where Connection names it, and where llhttp sees it too.
    """
    if b"connection" not in fields.index and not fields.upgraded:
        return not old, None
    named = options([value for name, value in fields.headers if name == b"connection"], refusal)
    asked = status == 101 and b"upgrade" in named
    upgrade = _protocol(fields.index.get(b"upgrade"), refusal) if asked else None
    if (upgrade is not None) is not fields.upgraded or (old and fields.upgraded):
        raise HeadError("an upgrade that can be read in two ways", refusal)
    return b"close" not in named and (not old or b"keep-alive" in named), upgrade


def _protocol(upgrade: bytes | None, refusal: int) -> bytes | None:
    """One protocol, `name` or `name/version`; a list would leave the choice to the next hop."""
    if upgrade is None:
        return None
    if not upgrade or upgrade.translate(None, _PROTOCOL):
        raise HeadError("malformed Upgrade", refusal)
    return upgrade.lower()
