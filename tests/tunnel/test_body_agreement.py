"""Chunked bodies that we accept, h11 and llhttp decode to the same bytes, on mutated ones too."""

from __future__ import annotations

import httptools
from h11 import Data, EndOfMessage
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tunnel.body import ChunkedBody, encode_chunk, encode_last_chunk
from tunnel.errors import HeadError
from tunnel.limits import HeadLimits

MUTANTS = [b"\0", b"\r", b"\n", b"\r\n", b" ", b"\t", b";", b"0", b"5", b"a", b"x", b"+", b"_", b":", b"0\r\n\r\n"]
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

pieces = st.lists(st.binary(min_size=1, max_size=20), max_size=4)
trailers = st.lists(st.tuples(st.just(b"x-a"), st.sampled_from([b"b", b"c d"])), max_size=2)
mutation = st.tuples(st.integers(0, 120), st.integers(0, 1), st.sampled_from(MUTANTS))


@settings(max_examples=1500, deadline=None)
@given(pieces, trailers, st.lists(mutation, max_size=2), st.integers(1, 40))
def test_chunked(
    parts: list[bytes], ends: list[tuple[bytes, bytes]], mutations: list[tuple[int, int, bytes]], step: int
) -> None:
    raw = b"".join(map(encode_chunk, parts)) + encode_last_chunk(ends)
    for at, cut, new in mutations:
        at = at % len(raw)
        raw = raw[:at] + new + raw[at + cut :]
    whole, stepped = ours(raw, len(raw)), ours(raw, step)
    assert whole == stepped
    if whole is None:
        event("refused or incomplete")
        return
    event("accepted")
    payload, size = whole
    if not mutations:
        assert (payload, size) == (b"".join(parts), len(raw))
    assert by_h11(raw) == (payload, size)
    assert by_llhttp(raw[:size]) == payload


def ours(raw: bytes, step: int) -> tuple[bytes, int] | None:
    """The payload and the length of the framed body; None if it is refused, or does not end."""
    body = ChunkedBody(HeadLimits())
    out: list[bytes] = []
    try:
        for i in range(0, len(raw), step):
            out += body.feed(raw[i : i + step])
    except HeadError:
        return None
    return (b"".join(out), len(raw) - len(body.rest)) if body.done else None


def by_h11(raw: bytes) -> tuple[bytes, int]:
    buffer = ReceiveBuffer()
    buffer += raw
    reader = ChunkedReader()
    out = b""
    while not isinstance(found := reader(buffer), EndOfMessage):
        assert isinstance(found, Data)
        out += found.data
    return out, len(raw) - len(buffer)


class Payload:
    """What llhttp decodes."""

    def __init__(self) -> None:
        self.data = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.data += data

    def on_message_complete(self) -> None:
        self.complete = True


def by_llhttp(raw: bytes) -> bytes:
    sink = Payload()
    httptools.HttpResponseParser(sink).feed_data(HEAD + raw)
    assert sink.complete
    return sink.data
