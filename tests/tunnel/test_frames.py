"""Frames are cut out of any stream of bytes, and refused before they are kept."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel import frames
from tunnel.errors import Hop, ProtocolError, Reason
from tunnel.frames import Frame, FrameReader, encode, parse_offset, parse_reset, reset_payload

FRAMES = [
    Frame(frames.HEAD, frames.FLAG_END, 1, b"head"),
    Frame(frames.PING, 0, 0, b"12345678"),
    Frame(frames.DATA, 0, 2**64 - 1, b"x" * 300),
    Frame(frames.END, 0, 7, b""),
    Frame(0x80, 0xFF, 3, b"unknown"),
]
STREAM = b"".join(encode(frame.type, frame.flags, frame.exchange, frame.payload) for frame in FRAMES)


def test_a_frame_on_the_wire() -> None:
    assert encode(0x03, 0x01, 258, b"ab") == b"\x03\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x01\x02ab"


def test_one_byte_at_a_time() -> None:
    reader = FrameReader(1024)
    assert [frame for i in range(len(STREAM)) for frame in reader.feed(STREAM[i : i + 1])] == FRAMES


@given(st.lists(st.integers(0, len(STREAM) * 3)))
def test_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream = STREAM * 3
    reader = FrameReader(1024)
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert [frame for piece in pieces for frame in reader.feed(piece)] == FRAMES * 3


def test_a_payload_beyond_the_limit_is_refused_before_its_first_byte_is_kept() -> None:
    reader = FrameReader(100)
    header = encode(frames.DATA, 0, 1, b"x" * 101)[: frames.HEADER_SIZE]
    assert reader.feed(header[:-1]) == []
    with pytest.raises(ProtocolError, match="101"):
        reader.feed(header[-1:])


def test_a_payload_at_the_limit_is_taken() -> None:
    assert len(FrameReader(100).feed(encode(frames.DATA, 0, 1, b"x" * 100))) == 1


def test_no_more_than_one_frame_is_held() -> None:
    reader = FrameReader(65_536)
    for _ in range(100):
        reader.feed(encode(frames.DATA, 0, 1, b"x" * 60_000))
    reader.feed(encode(frames.DATA, 0, 1, b"x" * 60_000)[:-1])
    assert len(reader._held) == frames.HEADER_SIZE + 60_000 - 1


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reset_says_who_and_why(reason: Reason) -> None:
    assert parse_reset(reset_payload(Hop.AGENT, reason, "grüße")) == (Hop.AGENT, reason, "grüße")


def test_a_reset_message_is_cut_and_never_breaks_the_peer() -> None:
    payload = reset_payload(Hop.STUB, Reason.INTERNAL, "ü" * 2000)
    assert len(payload) == 2 + frames.MAX_RESET_MESSAGE
    assert parse_reset(payload)[2].startswith("ü" * 500)
    assert parse_reset(b"\x01\x01\xff\xff")[2] == "\ufffd\ufffd"


def test_an_unknown_reason_is_internal() -> None:
    assert parse_reset(b"\x03\xee")[1] is Reason.INTERNAL


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x01\x01" + b"x" * 1025, b"\x00\x01", b"\x06\x01"])
def test_malformed_resets(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_reset(payload)


@pytest.mark.parametrize("payload", [b"", b"1234567", b"123456789"])
def test_malformed_offsets(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_offset(payload)
