"""Bodies end where their framing says, to the byte, or the connection ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.body import (
    LAST_CHUNK,
    Body,
    ChunkedBody,
    LengthBody,
    NoBody,
    UntilCloseBody,
    body_for,
    chunk_head,
    encode_chunk,
    encode_last_chunk,
)
from tunnel.errors import HeadError
from tunnel.head import Framing, FramingKind
from tunnel.limits import HeadLimits

LIMITS = HeadLimits(trailer_bytes=100, trailers=3)


def chunked(data: bytes) -> tuple[bytes, ChunkedBody]:
    body = ChunkedBody(LIMITS)
    return b"".join(body.feed(data)), body


def refused(data: bytes) -> None:
    """Fed whole, and fed byte by byte."""
    with pytest.raises(HeadError):
        ChunkedBody(LIMITS).feed(data)
    body = ChunkedBody(LIMITS)
    with pytest.raises(HeadError):
        byte_by_byte(body, data)
    assert not body.done


def byte_by_byte(body: ChunkedBody, data: bytes) -> None:
    for i in range(len(data)):
        body.feed(data[i : i + 1])


def test_chunks_and_what_follows_them() -> None:
    payload, body = chunked(b"5\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\nHTTP/1.1 200")
    assert (payload, body.done, body.rest, body.trailers) == (b"hello0123456789", True, b"HTTP/1.1 200", [])
    assert body.feed(b" OK") == []
    assert body.rest == b"HTTP/1.1 200 OK"


def test_a_chunk_in_pieces_is_passed_on_as_it_comes() -> None:
    body = ChunkedBody(LIMITS)
    transcript = [body.feed(piece) for piece in (b"a\r", b"\n0123", b"45", b"6789\r", b"\n0\r\n\r", b"\nx")]
    assert transcript == [[], [b"0123"], [b"45"], [b"6789"], [], []]
    assert (body.done, body.rest) == (True, b"x")


def test_a_payload_that_looks_like_an_end_is_payload() -> None:
    assert chunked(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n")[0] == b"0\r\n\r\n"


@pytest.mark.parametrize(
    "size",
    [
        b"",
        b"+5",
        b"-5",
        b" 5",
        b"5 ",
        b"5\t",
        b"0x5",
        b"5_0",
        b"5;a=b",
        b"5;",
        b"g",
        b"\xd9\xa5",
        b"5\0",
        b"5\r",
        b"5h",
    ],
)
def test_malformed_sizes_are_refused(size: bytes) -> None:
    refused(size + b"\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize("size", [b"0" * 17, b"0" * 16 + b"5", b"f" * 16, b"10000000001", b"1" * 100])
def test_huge_sizes_are_refused(size: bytes) -> None:
    refused(size + b"\r\nhello\r\n")
    assert chunked(b"0" * 15 + b"5\r\nhello\r\n")[0] == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"5\nhello\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\rx0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"\r\n5\r\nhello\r\n",
        b"0\n\n\r\n",
        b"0\r\n\n",
        b"0;a\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
    ],
)
def test_malformed_chunks_are_refused(data: bytes) -> None:
    refused(data)


def test_trailers() -> None:
    raw = b"0\r\nServer-Timing: a \r\nx-b:c\r\n\r\nrest"
    for size in (1, 3, len(raw)):
        body = ChunkedBody(LIMITS)
        assert [body.feed(raw[i : i + size]) for i in range(0, len(raw), size)].count([]) == -(-len(raw) // size)
        assert body.trailers == [(b"server-timing", b"a"), (b"x-b", b"c")]
        assert (body.done, body.rest) == (True, b"rest")


@pytest.mark.parametrize(
    "trailer",
    [
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Host: h",
        b"Authorization: Bearer x",
        b"Impersonate-User: admin",
        b"impersonate_group: x",
        b"X-Remote-User: x",
        b"Connection: close",
        b"Set-Cookie: a",
        b"A : b",
        b" A: b",
        b"A",
        b": b",
        b"A: b\nC: d",
        b"A: b\r",
        b"A: \0",
        b"A: b\r\nB: c\r\nC: d\r\nD: e",
        b"A: " + b"b" * 100,
    ],
)
def test_trailers_that_are_refused(trailer: bytes) -> None:
    refused(b"0\r\n" + trailer + b"\r\n\r\n")


def test_trailers_without_end_are_refused() -> None:
    body = ChunkedBody(LIMITS)
    body.feed(b"0\r\n")
    with pytest.raises(HeadError):
        byte_by_byte(body, b"a" * 101)


@pytest.mark.parametrize(
    "data", [b"", b"5", b"5\r\n", b"5\r\nhel", b"5\r\nhello", b"0\r\n", b"0\r\n\r", b"0\r\na: b\r\n"]
)
def test_a_chunked_body_that_is_cut_off(data: bytes) -> None:
    body = chunked(data)[1]
    assert not body.done
    with pytest.raises(HeadError):
        body.eof()


def test_a_length() -> None:
    body = LengthBody(5)
    assert [body.feed(b"hel"), body.feed(b""), body.done] == [[b"hel"], [], False]
    with pytest.raises(HeadError):
        body.eof()
    assert [body.feed(b"loGET"), body.done, body.rest] == [[b"lo"], True, b"GET"]
    assert body.feed(b" /") == []
    assert body.rest == b"GET /"
    body.eof()


def test_a_length_of_zero_is_done_at_once() -> None:
    body = LengthBody(0)
    assert body.done
    assert (body.feed(b""), body.feed(b"x"), body.rest) == ([], [], b"x")


def test_no_body_is_all_surplus() -> None:
    body = NoBody()
    body.eof()
    assert (body.done, body.feed(b"x"), body.rest) == (True, [], b"x")


def test_until_close() -> None:
    body = UntilCloseBody()
    assert [body.feed(b"a"), body.feed(b""), body.done] == [[b"a"], [], False]
    body.eof()
    assert body.done
    assert (body.feed(b"late"), body.rest) == ([], b"late")


@pytest.mark.parametrize(
    ("framing", "kind"),
    [
        (Framing(FramingKind.NONE), NoBody),
        (Framing(FramingKind.LENGTH, 3), LengthBody),
        (Framing(FramingKind.CHUNKED), ChunkedBody),
        (Framing(FramingKind.UNTIL_CLOSE), UntilCloseBody),
    ],
)
def test_each_framing_has_its_decoder(framing: Framing, kind: type[Body]) -> None:
    assert type(body_for(framing, LIMITS)) is kind


def test_an_upgrade_has_no_body_to_decode() -> None:
    with pytest.raises(ValueError, match="upgraded"):
        body_for(Framing(FramingKind.UPGRADE), LIMITS)


def test_encoding() -> None:
    assert encode_chunk(b"hello") == chunk_head(5) + b"hello\r\n" == b"5\r\nhello\r\n"
    assert encode_chunk(b"") == b""
    assert encode_last_chunk([]) == LAST_CHUNK
    assert encode_last_chunk([(b"a", b"b")]) == b"0\r\na: b\r\n\r\n"
    with pytest.raises(HeadError):
        encode_last_chunk([(b"a", b"b\r\nc: d")])
    with pytest.raises(ValueError, match="empty"):
        chunk_head(0)


@given(st.lists(st.binary(max_size=40), max_size=5), st.binary(max_size=5), st.lists(st.integers(0, 300), max_size=9))
def test_however_the_bytes_are_cut_the_payload_is_the_same(
    pieces: list[bytes], surplus: bytes, cuts: list[int]
) -> None:
    raw = b"".join(map(encode_chunk, pieces)) + encode_last_chunk([(b"a", b"b")]) + surplus
    edges = sorted({0, *(cut for cut in cuts if cut < len(raw)), len(raw)})
    body = ChunkedBody(LIMITS)
    out = [piece for a, b in pairwise(edges) for piece in body.feed(raw[a:b])]
    assert b"".join(out) == b"".join(pieces)
    assert b"" not in out
    assert (body.done, body.rest, body.trailers) == (True, surplus, [(b"a", b"b")])
