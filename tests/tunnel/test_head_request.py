"""What a client may send as a request head, and each way of saying something else that is refused."""

from __future__ import annotations

import pytest

from tunnel.errors import HeadError
from tunnel.head import Framing, FramingKind, RequestHead, RequestReader
from tunnel.limits import HeadLimits

EXEC = (
    b"POST /clusters/a/api/v1/namespaces/default/pods/web/exec?command=sh&stdin=true HTTP/1.1\r\n"
    b"Host: gateway:8443\r\n"
    b"User-Agent: kubectl/v1.36.3\r\n"
    b"Content-Length: 0\r\n"
    b"X-Stream-Protocol-Version: v5.channel.k8s.io\r\n"
    b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
    b"Connection: Upgrade\r\n"
    b"Upgrade: SPDY/3.1\r\n\r\n"
)


def read(raw: bytes, limits: HeadLimits | None = None) -> RequestHead:
    reader = RequestReader(limits or HeadLimits())
    head = reader.feed(raw)
    assert head is not None
    assert reader.rest == b""
    return head


def get(*lines: bytes, version: bytes = b"1.1", method: bytes = b"GET", target: bytes = b"/api") -> RequestHead:
    return read(b"\r\n".join([method + b" " + target + b" HTTP/" + version, *lines, b"", b""]))


def refused(raw: bytes, limits: HeadLimits | None = None) -> int:
    with pytest.raises(HeadError) as caught:
        RequestReader(limits or HeadLimits()).feed(raw)
    return caught.value.status


def refused_with(*lines: bytes, version: bytes = b"1.1", host: bytes = b"Host: g") -> int:
    return refused(b"\r\n".join([b"POST /api HTTP/" + version, host, *lines, b"", b""]))


def test_a_plain_get() -> None:
    head = get(b"Host: g:8443", b"Accept: */*", target=b"/api/v1/pods?watch=true&a=%3F?b")
    assert (head.method, head.target) == (b"GET", b"/api/v1/pods?watch=true&a=%3F?b")
    assert (head.path, head.query) == (b"/api/v1/pods", b"watch=true&a=%3F?b")
    assert head.headers == [(b"host", b"g:8443"), (b"accept", b"*/*")]
    assert (head.version, head.keep_alive, head.host) == (b"1.1", True, b"g:8443")
    assert head.framing.empty
    assert head.upgrade is None
    assert not head.expect_continue


def test_an_exec_over_spdy() -> None:
    head = read(EXEC)
    assert head.upgrade == b"spdy/3.1"
    assert head.framing.kind is FramingKind.NONE
    assert head.get(b"x-stream-protocol-version") == b"v5.channel.k8s.io"
    assert head.get_all(b"x-stream-protocol-version") == [b"v5.channel.k8s.io", b"v4.channel.k8s.io"]


def test_odd_but_legal_spelling_reads_the_same() -> None:
    odd = get(b"HOST:g", b"a: \t b \xe9\tc \t", b"Empty:", b"Blank: ")
    assert odd.headers == [(b"host", b"g"), (b"a", b"b \xe9\tc"), (b"empty", b""), (b"blank", b"")]


@pytest.mark.parametrize(
    ("lines", "framing"),
    [
        ([b"Content-Length: 5"], Framing(FramingKind.LENGTH, 5)),
        ([b"Content-Length: 5 "], Framing(FramingKind.LENGTH, 5)),
        ([b"Content-Length: 0"], Framing(FramingKind.LENGTH, 0)),
        ([b"Transfer-Encoding: chunked"], Framing(FramingKind.CHUNKED)),
        ([b"Transfer-Encoding: Chunked"], Framing(FramingKind.CHUNKED)),
        ([b"TE: trailers"], Framing(FramingKind.NONE)),
    ],
)
def test_framing(lines: list[bytes], framing: Framing) -> None:
    assert get(b"Host: g", *lines, method=b"PATCH").framing == framing


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 0", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 5", b"content-length: 5"],
        [b"Content-Length: 5, 5"],
        [b"Content-Length: +5"],
        [b"Content-Length: -1"],
        [b"Content-Length: 0x5"],
        [b"Content-Length: 5_0"],
        [b"Content-Length: 5 5"],
        [b"Content-Length:"],
        [b"Content-Length: 9999999999999999999"],
        [b"Content-Length: " + b"0" * 40 + b"5"],
        [b"Transfer-Encoding: xchunked"],
        [b"Transfer-Encoding: chunked, chunked"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding:"],
        [b"Transfer-Encoding: \x0bchunked"],
        [b"Transfer-Encoding : chunked"],
    ],
)
def test_ambiguous_framing_is_refused(lines: list[bytes]) -> None:
    assert refused_with(*lines) in (400, 501)


def test_an_unknown_coding_is_not_implemented() -> None:
    assert refused_with(b"Transfer-Encoding: gzip, chunked") == 501


def test_chunked_means_nothing_in_http_1_0() -> None:
    assert refused_with(b"Transfer-Encoding: chunked", version=b"1.0") == 400


@pytest.mark.parametrize(
    "line",
    [
        b" folded",
        b"A: x\r\n folded",
        b"A: x\r\n\tfolded",
        b"A : x",
        b"A\t: x",
        b": x",
        b"A",
        b"A B: x",
        b"A: x\nB: y",
        b"A: x\rB: y",
        b"A: x\r",
        b"A: \0",
        b"A: \x01",
        b"A: \x7f",
        b"A: \x0b",
        b"\xe9: x",
        b"A\0: x",
        b"Host: g",
        b"host: h",
        b"Upgrade: a\r\nUpgrade: b",
        b"Authorization: Bearer a\r\nAuthorization: Bearer b",
        b"Connection: a b",
    ],
)
def test_malformed_fields_are_refused(line: bytes) -> None:
    assert refused_with(line) == 400


@pytest.mark.parametrize("host", [b"X: y", b"Host:", b"Host: a b", b"Host: a/b", b"Host: a@b", b"Host: a,b"])
def test_a_missing_or_malformed_host_is_refused(host: bytes) -> None:
    assert refused_with(host=host) == 400


def test_http_1_0_needs_no_host_and_closes() -> None:
    head = get(version=b"1.0")
    assert (head.version, head.host, head.keep_alive, head.headers) == (b"1.0", None, False, [])
    assert get(b"Connection: keep-alive", version=b"1.0").keep_alive
    assert not get(b"Connection: keep-alive, close", version=b"1.0").keep_alive


@pytest.mark.parametrize("lines", [[b"Connection: close"], [b"Connection: x", b"Connection: , CLOSE"]])
def test_connection_lists(lines: list[bytes]) -> None:
    assert not get(b"Host: g", *lines).keep_alive


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET http://h/ HTTP/1.1", 400),
        (b"CONNECT h:443 HTTP/1.1", 501),
        (b"OPTIONS * HTTP/1.1", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b"GET /\xc3\xa9 HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET /\x7f HTTP/1.1", 400),
        (b"GET /\0 HTTP/1.1", 400),
        (b"GET / ", 400),
        (b"GET /", 400),
        (b"", 400),
        (b"get / HTTP/1.1", 501),
        (b"TRACE / HTTP/1.1", 501),
        (b"G(T / HTTP/1.1", 400),
        (b"GET / HTTP/1.2", 505),
        (b"GET / HTTP/2.0", 505),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.10", 400),
        (b" GET / HTTP/1.1", 400),
        (b"\r\nGET / HTTP/1.1", 400),
    ],
)
def test_malformed_request_lines_are_refused(line: bytes, status: int) -> None:
    assert refused(line + b"\r\nHost: g\r\n\r\n") == status


def test_other_protocols_are_refused_at_once() -> None:
    assert refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") == 505
    assert refused(b"\x16\x03\x01\x02\x00\x01") == 400
    assert refused(b"GET /\r\n") == 400
    assert refused(b"GET / HTTP/1.1\nHost: g\n\n") == 400


def test_expect() -> None:
    assert get(b"Host: g", b"Expect: 100-Continue").expect_continue
    assert not get(b"Expect: 100-continue", version=b"1.0").expect_continue
    assert refused_with(b"Expect: 200-ok") == 417
    assert refused_with(b"Expect:") == 417


def test_upgrade_needs_connection_to_name_it() -> None:
    assert get(b"Host: g", b"Upgrade: websocket").upgrade is None
    assert get(b"Host: g", b"Connection: upgrade").upgrade is None
    assert get(b"Host: g", b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket").upgrade == b"websocket"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 5"],
        [b"Connection: upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked"],
        [b"Connection: upgrade", b"Upgrade: websocket, h2c"],
        [b"Connection: upgrade", b"Upgrade:"],
        [b"Proxy-Connection: upgrade", b"Upgrade: websocket"],
    ],
)
def test_upgrades_that_two_servers_would_read_differently(lines: list[bytes]) -> None:
    assert refused_with(*lines) == 400


def test_an_upgrade_in_http_1_0_is_refused() -> None:
    assert refused_with(b"Connection: upgrade", b"Upgrade: websocket", version=b"1.0") == 400


def test_nothing_secret_is_in_a_repr_or_an_error() -> None:
    head = get(b"Host: g", b"Authorization: Bearer s3cret", target=b"/api?token=s3cret")
    assert "s3cret" not in repr(head)
    with pytest.raises(HeadError) as caught:
        get(b"Host: g", b"Authorization: Bearer s3cret\x01")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
