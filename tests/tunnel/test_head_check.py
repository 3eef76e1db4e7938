"""Our own check stands by itself: what llhttp refuses today is refused without it, and a llhttp that lies is caught."""

from __future__ import annotations

import pytest
from httptools import HttpParserUpgrade

from tunnel.errors import HeadError
from tunnel.headcheck import Make, Sink, careful_fields, plain_fields
from tunnel.headframing import declared
from tunnel.headline import request_line, status_line

FIELDS = [(b"Host", b"g"), (b"A", b"b")]
START = len(b"GET / HTTP/1.1\r\n")
RAW = b"GET / HTTP/1.1\r\nHost: g\r\nA: b\r\n\r\n"


class Liar:
    """A parser that reports what it likes."""

    def __init__(self, sink: Sink, says: list[tuple[bytes, bytes]], upgrade_at: int | None) -> None:
        self.sink = sink
        self.says = says
        self.upgrade_at = upgrade_at

    def feed_data(self, data: bytes) -> None:
        for name, value in self.says:
            self.sink.on_header(name, value)
        if self.upgrade_at is not None:
            raise HttpParserUpgrade(self.upgrade_at)


def liar(says: list[tuple[bytes, bytes]], upgrade_at: int | None = None) -> Make[Liar]:
    return lambda sink: Liar(sink, says, upgrade_at)


def test_the_truth_is_believed() -> None:
    plain = plain_fields(liar(FIELDS), RAW, START, 400)
    assert plain is not None
    careful = careful_fields(liar(FIELDS), RAW, START, 9, 400)
    assert plain.headers == careful.headers == [(b"host", b"g"), (b"a", b"b")]


@pytest.mark.parametrize(
    "says",
    [
        [],
        FIELDS[:1],
        [*FIELDS, (b"C", b"d")],
        [(b"Host", b"g"), (b"A", b"c")],
        [(b"Host", b"h"), (b"A", b"b")],
        [(b"A", b"b"), (b"Host", b"g")],
        [(b"Host", b"g"), (b"A", b"")],
        [(b"Host", b"g\r\nA: b")],
    ],
)
def test_two_readings_are_a_refusal(says: list[tuple[bytes, bytes]]) -> None:
    assert plain_fields(liar(says), RAW, START, 400) is None
    with pytest.raises(HeadError):
        careful_fields(liar(says), RAW, START, 9, 400)


def test_an_upgrade_before_the_end_of_the_head_is_a_refusal() -> None:
    with pytest.raises(HeadError):
        plain_fields(liar(FIELDS, len(RAW) - 1), RAW, START, 400)
    assert careful_fields(liar(FIELDS, len(RAW)), RAW, START, 9, 400).upgraded


@pytest.mark.parametrize("length", [b"", b"+5", b"-5", b"5_0", b"0x5", b"5 5", b"5, 5", b"\xb2", b"5" * 19])
def test_lengths(length: bytes) -> None:
    with pytest.raises(HeadError):
        declared(length, None, False, 400)


def test_a_length_and_a_coding() -> None:
    with pytest.raises(HeadError):
        declared(b"5", b"chunked", False, 400)


@pytest.mark.parametrize("target", [b"/\xc3\xa9", b"/\x7f", b"/\0", b"/\t", b"/\r", b"/\n", b"*", b"http://h/", b"/#"])
def test_targets(target: bytes) -> None:
    with pytest.raises(HeadError):
        request_line(b"GET " + target + b" HTTP/1.1", 100)


@pytest.mark.parametrize("line", [b"HTTP/1.1 2_0 x", b"HTTP/1.1 \xb2\xb20 x", b"HTTP/1.1 200 \x01", b"HTTP/1.1 20"])
def test_status_lines(line: bytes) -> None:
    with pytest.raises(HeadError):
        status_line(line)
