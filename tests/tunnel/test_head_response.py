"""What an API server may answer, and what ends the connection to it instead."""

from __future__ import annotations

import pytest

from tunnel.errors import HeadError
from tunnel.head import Framing, FramingKind, ResponseHead, ResponseReader
from tunnel.limits import HeadLimits

NONE = Framing(FramingKind.NONE)
UNTIL_CLOSE = Framing(FramingKind.UNTIL_CLOSE)


def answer(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> ResponseHead:
    head = ResponseReader(HeadLimits(), method).feed(b"\r\n".join([first, *lines, b"", b""]))
    assert head is not None
    return head


def refused(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> None:
    with pytest.raises(HeadError) as caught:
        answer(*lines, first=first, method=method)
    assert caught.value.status == 502


def test_a_plain_answer() -> None:
    head = answer(b"Content-Type: application/json", b"Content-Length: 17")
    assert (head.status, head.reason, head.version, head.keep_alive) == (200, b"OK", b"1.1", True)
    assert head.headers == [(b"content-type", b"application/json"), (b"content-length", b"17")]
    assert head.framing == Framing(FramingKind.LENGTH, 17)


@pytest.mark.parametrize(
    ("first", "status", "reason"),
    [
        (b"HTTP/1.1 404 Not Found", 404, b"Not Found"),
        (b"HTTP/1.1 200", 200, b""),
        (b"HTTP/1.1 200 ", 200, b""),
        (b"HTTP/1.1 599 \xe9\t", 599, b"\xe9\t"),
        (b"HTTP/1.1 999 x", 999, b"x"),
    ],
)
def test_status_lines(first: bytes, status: int, reason: bytes) -> None:
    head = answer(b"Content-Length: 0", first=first)
    assert (head.status, head.reason) == (status, reason)


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 000 x",
        b"HTTP/1.1 099 x",
        b"HTTP/1.1 99 x",
        b"HTTP/1.1 1000 x",
        b"HTTP/1.1 +20 x",
        b"HTTP/1.1  200 x",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 200 O\0K",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1",
        b"HTTP/2.0 200 OK",
        b"HTTP/0.9 200 OK",
        b"ICY 200 OK",
        b" HTTP/1.1 200 OK",
        b"",
    ],
)
def test_malformed_status_lines_are_refused(first: bytes) -> None:
    refused(b"Content-Length: 0", first=first)


@pytest.mark.parametrize(
    ("first", "method", "lines", "framing"),
    [
        (b"200 OK", b"GET", [b"Transfer-Encoding: chunked"], Framing(FramingKind.CHUNKED)),
        (b"200 OK", b"GET", [], UNTIL_CLOSE),
        (b"200 OK", b"HEAD", [b"Content-Length: 5"], NONE),
        (b"200 OK", b"HEAD", [b"Transfer-Encoding: chunked"], NONE),
        (b"200 OK", b"HEAD", [], NONE),
        (b"204 No Content", b"DELETE", [b"Content-Length: 5"], NONE),
        (b"304 Not Modified", b"GET", [b"Content-Length: 5"], NONE),
        (b"304 Not Modified", b"GET", [b"Transfer-Encoding: chunked"], NONE),
        (b"100 Continue", b"POST", [b"Content-Length: 5"], NONE),
        (b"103 Early Hints", b"GET", [b"Link: x"], NONE),
    ],
)
def test_framing(first: bytes, method: bytes, lines: list[bytes], framing: Framing) -> None:
    head = answer(*lines, first=b"HTTP/1.1 " + first, method=method)
    assert head.framing == framing
    assert head.keep_alive is (framing is not UNTIL_CLOSE)


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5, 5"],
        [b"Content-Length: +5"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: gzip"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"A : b"],
        [b"A: b\r\n c"],
        [b"A: b\nc: d"],
        [b"A: b\0"],
        [b"Content-Type: a", b"Content-Type: b"],
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_ambiguous_answers_are_refused(lines: list[bytes], method: bytes) -> None:
    refused(*lines, method=method)


def test_no_chunks_where_there_is_no_body() -> None:
    refused(b"Transfer-Encoding: chunked", first=b"HTTP/1.1 204 No Content")
    refused(b"Transfer-Encoding: chunked", first=b"HTTP/1.1 100 Continue")
    refused(b"Transfer-Encoding: chunked", first=b"HTTP/1.0 200 OK")


def test_a_switch_of_protocols() -> None:
    head = answer(b"Connection: Upgrade", b"Upgrade: SPDY/3.1", first=b"HTTP/1.1 101 Switching Protocols")
    assert head.upgrade == b"spdy/3.1"
    assert head.framing.kind is FramingKind.UPGRADE
    assert not head.keep_alive


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"Upgrade: websocket"],
        [b"Connection: Upgrade"],
        [b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 5"],
        [b"Connection: Upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked"],
        [b"Connection: Upgrade", b"Upgrade: websocket, h2c"],
    ],
)
def test_a_doubtful_101_is_refused(lines: list[bytes]) -> None:
    refused(*lines, first=b"HTTP/1.1 101 Switching Protocols")


def test_an_offer_of_an_upgrade_is_no_upgrade() -> None:
    assert answer(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 0").upgrade is None


def test_bytes_after_a_101_are_the_surplus() -> None:
    reader = ResponseReader(HeadLimits())
    head = reader.feed(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: spdy/3.1\r\n\r\n\x80\x03\x00")
    assert head is not None
    assert reader.rest == b"\x80\x03\x00"


def test_interim_answers_come_one_by_one() -> None:
    reader = ResponseReader(HeadLimits(), b"POST")
    data, seen = b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}", []
    while (head := reader.feed(data)) is not None:
        seen.append(head.status)
        data = reader.rest
        if head.status >= 200:
            break
    assert seen == [100, 100, 201]
    assert reader.rest == b"{}"


def test_http_1_0_answers_close_unless_they_say_otherwise() -> None:
    assert not answer(b"Content-Length: 1", first=b"HTTP/1.0 200 OK").keep_alive
    assert answer(b"Content-Length: 1", b"Connection: keep-alive", first=b"HTTP/1.0 200 OK").keep_alive
    assert not answer(b"Connection: keep-alive", first=b"HTTP/1.0 200 OK").keep_alive
    assert not answer(b"Content-Length: 1", b"Connection: close").keep_alive
