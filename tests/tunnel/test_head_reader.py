"""A reader of heads holds little, refuses early, and does not care how its bytes were cut."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tunnel.test_head_request import EXEC
from tunnel.errors import HeadError
from tunnel.head import RequestHead, RequestReader, ResponseReader
from tunnel.limits import HeadLimits

GET = b"GET / HTTP/1.1\r\nHost: g\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: a\r\n\r\n"
LIMITS = HeadLimits(head_bytes=1024, headers=4, target_bytes=100)
WHOLE = [GET, EXEC, b"GET / HTTP/1.0\r\n\r\n", b"PUT /x HTTP/1.1\r\nhost:g\r\nA: \t\r\nContent-Length: 3\r\n\r\n"]


def status_of(raw: bytes, limits: HeadLimits = LIMITS) -> int:
    with pytest.raises(HeadError) as caught:
        RequestReader(limits).feed(raw)
    return caught.value.status


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 400)), st.binary(max_size=9))
def test_however_the_bytes_are_cut_the_head_and_the_surplus_are_the_same(
    raw: bytes, cuts: list[int], surplus: bytes
) -> None:
    whole = RequestReader(HeadLimits())
    expected = repr(whole.feed(raw + surplus))
    assert whole.rest == surplus
    reader = RequestReader(HeadLimits())
    edges = sorted({0, *(cut for cut in cuts if cut < len(raw)), len(raw) + len(surplus)})
    heads = [reader.feed((raw + surplus)[a:b]) for a, b in pairwise(edges)]
    assert [head for head in heads[:-1] if head] == []
    assert heads[-1] is not None
    assert repr(heads[-1]) == expected
    assert (reader.rest, reader.held) == (surplus, 0)


@pytest.mark.parametrize("raw", WHOLE)
def test_one_byte_at_a_time(raw: bytes) -> None:
    reader = RequestReader(HeadLimits())
    heads = [reader.feed(raw[i : i + 1]) for i in range(len(raw))]
    whole = RequestReader(HeadLimits()).feed(raw)
    assert heads[:-1] == [None] * (len(raw) - 1)
    assert heads[-1] is not None
    assert whole is not None
    assert heads[-1].headers == whole.headers


def test_several_heads_on_one_connection() -> None:
    reader = RequestReader(HeadLimits())
    assert reader.feed(GET + GET[:7]) is not None
    assert reader.feed(reader.rest) is None
    assert reader.feed(GET[7:] + b"x") is not None
    assert reader.rest == b"x"
    assert reader.feed(GET) is not None
    assert reader.rest == b""


def test_no_byte_no_head() -> None:
    reader = RequestReader(HeadLimits())
    assert reader.feed(b"") is None
    assert reader.held == 0


def test_limits() -> None:
    assert status_of(b"GET / HTTP/1.1\r\nHost: g\r\n" + b"A: b\r\n" * 4 + b"\r\n") == 431
    assert status_of(b"GET / HTTP/1.1\r\nHost: g\r\n" + b"".join(b"A%d: b\r\n" % i for i in range(4)) + b"\r\n") == 431
    assert status_of(b"GET / HTTP/1.1\r\nHost: g\r\nA: " + b"b" * 1024 + b"\r\n\r\n") == 431
    assert status_of(b"GET / HTTP/1.1\r\nHost: g\r\nA: " + b"b" * 1024) == 431
    assert status_of(b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: g\r\n\r\n") == 414
    assert status_of(b"GET /" + b"a" * 200) == 414


def test_a_head_of_exactly_the_limit_is_read_and_one_more_byte_is_not() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: g\r\nA: " + b"b" * (1024 - 32) + b"\r\n\r\n"
    assert len(raw) == 1024
    assert RequestReader(LIMITS).feed(raw) is not None
    reader = RequestReader(LIMITS)
    assert [reader.feed(raw[i : i + 1]) for i in range(1024)][-1] is not None
    assert status_of(raw.replace(b"A: ", b"A: b")) == 431


def test_what_is_held_never_exceeds_the_limit() -> None:
    reader = RequestReader(LIMITS)
    reader.feed(GET[:16])
    for _ in range(1024 - 17):
        assert reader.feed(b"A") is None
    assert reader.held == 1023
    with pytest.raises(HeadError):
        reader.feed(b"A")
    assert reader.held == 0


def test_a_refusal_is_final() -> None:
    reader = RequestReader(HeadLimits())
    with pytest.raises(HeadError):
        reader.feed(b"GET / HTTP/1.1\r\n\r\n" + GET)
    assert reader.rest == b""
    reader.reset()
    with pytest.raises(HeadError):
        reader.feed(GET)


def test_a_slow_head_is_linear() -> None:
    """64 KiB, one byte at a time: the square of it would take minutes."""
    raw = b"GET / HTTP/1.1\r\nHost: g\r\n" + b"A: b\r\n" * 10_000
    reader = RequestReader(HeadLimits())
    began = time.process_time()
    for i in range(len(raw)):
        reader.feed(raw[i : i + 1])
    assert time.process_time() - began < 5


@pytest.mark.parametrize("filler", [b" ", b"\t", b"x ", b"a:", b": "])
def test_a_hostile_head_is_linear(filler: bytes) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: g\r\nA: " + filler * (60_000 // len(filler)) + b"\x01\r\n\r\n"
    began = time.process_time()
    assert status_of(raw, HeadLimits()) == 400
    assert time.process_time() - began < 1


@pytest.mark.parametrize("cut", [b"GET / HTTP/1.1\r\nHost: g\r", b"GET / HTTP/1.1\r"])
def test_a_bare_lf_is_found_across_a_cut(cut: bytes) -> None:
    reader = RequestReader(HeadLimits())
    assert reader.feed(cut) is None
    assert reader.feed(b"\nA: b") is None
    with pytest.raises(HeadError):
        reader.feed(b"\n")


def test_answers_are_cut_likewise() -> None:
    reader = ResponseReader(HeadLimits())
    heads = [reader.feed(OK[i : i + 1]) for i in range(len(OK))]
    assert heads[-1] is not None
    assert heads[-1].framing.length == 2
    with pytest.raises(HeadError):
        ResponseReader(HeadLimits()).feed(b"SSH-2.0-x\r\n")
    with pytest.raises(HeadError):
        ResponseReader(HeadLimits()).feed(b"HTTP/1.1 2000 OK\r\n")


LINES = [
    b"GET / HTTP/1.1\r\n",
    b"GET /a?b HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"POST /x HTTP/1.1\r\n",
    b"BREW / HTTP/1.1\r\n",
]
LINES += [
    b"GET  / HTTP/1.1\r\n",
    b"GET /\x00 HTTP/1.1\r\n",
    b"GET / HTTP/1.1 \r\n",
    b"GET /" + b"a" * 200 + b" HTTP/1.1\r\n",
]
FIELDS = [
    b"Host: g\r\n\r\n",
    b"Host: g\r\nAccept: a\r\n\r\n",
    b"Host: g\r\nAccept: a\r\nAccept: b\r\n\r\n",
    b"Host: g\r\nContent-Length: 2\r\n\r\n",
    b"Host: g\r\nConnection: close\r\n\r\n",
    b"Host: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"Host: g\r\n x\r\n\r\n",
    b"Host: g\r\nAccept: a\r\n\r",
    b"Accept: a\r\n\r\n",
]


def answer_of(reader: RequestReader, raw: bytes) -> RequestHead | int | None:
    """A head, nothing yet, or a refusal's status."""
    try:
        return reader.feed(raw)
    except HeadError as refused:
        return refused.status


@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(FIELDS), st.binary(max_size=3)), max_size=12))
def test_what_is_remembered_of_one_head_changes_nothing_in_the_next(heads: list[tuple[bytes, bytes, bytes]]) -> None:
    reader = RequestReader(LIMITS)
    for line, fields, surplus in heads:
        raw = line + fields + surplus
        fresh = RequestReader(LIMITS)
        expected, head = answer_of(fresh, raw), answer_of(reader, raw)
        if isinstance(expected, int):
            assert head == expected
            return
        assert repr(head) == repr(expected)
        if head is None or expected is None or isinstance(head, int):
            return
        assert reader.rest == fresh.rest
        assert (head.headers, head.target) == (expected.headers, expected.target)
        assert head.get(b"accept") == expected.get(b"accept")


def test_heads_with_the_same_fields_share_what_is_derived_of_them_and_others_do_not() -> None:
    reader = RequestReader(HeadLimits())
    first, again = reader.feed(GET), reader.feed(GET.replace(b"GET / ", b"GET /other "))
    other = reader.feed(GET.replace(b"Host: g", b"Host: h"))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.derived is again.derived
    assert other.derived is not first.derived
