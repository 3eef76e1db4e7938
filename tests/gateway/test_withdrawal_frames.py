"""What Kulvert puts behind a cluster's WebSocket frames: the whole is a valid stream, wherever it is cut."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from gateway.websocketfarewell import Farewell, Frames, farewell_of
from tests.gateway.execstreams import fragment, message
from tunnel.websocket import BINARY, CLOSE, CONT, PING, PONG, TEXT, encode

STATUS = b'{"kind":"Status"}'
WORDS = "you may not do this"
V5 = b"v5.channel.k8s.io"


def judged(stream: bytes) -> list[Frame]:
    """The frames, as a client by the library reads them. :raises Exception: it is no valid stream."""
    client = Protocol(CLIENT, state=OPEN, max_size=None)
    client.receive_data(stream)
    if client.parser_exc is not None:
        raise client.parser_exc
    return [event for event in client.events_received() if isinstance(event, Frame)]


def followed(pieces: Iterable[bytes], protocol: bytes = V5) -> Farewell:
    farewell = Farewell(protocol)
    for piece in pieces:
        farewell.feed(piece)
    return farewell


def told(farewell: Farewell) -> bytes:
    return farewell.words(STATUS, WORDS)


# --- valid streams

payloads = st.one_of(st.binary(max_size=4), st.sampled_from([125, 126, 127, 65_535, 65_536, 70_000]).map(bytes))
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)).map(lambda c: encode(*c, masked=False))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message, in any number of frames, with control frames before and within it."""
    parts = draw(st.lists(payloads, min_size=1, max_size=4))
    frames = []
    for number, part in enumerate(parts):
        frames += draw(st.lists(controls, max_size=2))
        opcode = CONT if number else draw(st.sampled_from([BINARY, TEXT]))
        frames.append(fragment(opcode, part, final=number == len(parts) - 1))
    return b"".join(frames)


streams = st.lists(messages(), max_size=4).map(b"".join)
sizes = st.lists(st.one_of(st.integers(1, 12), st.integers(1, 70_000)), min_size=1, max_size=6)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """In pieces of these sizes, again and again."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        pieces.append(data[at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
        if len(pieces) > 2_000:  # enough of single bytes
            sizes = [max(sizes) + 4_096]
    return pieces


@settings(deadline=None)
@given(streams, sizes, st.floats(0, 1))
def test_a_valid_stream_stays_one_wherever_it_is_ended(stream: bytes, sizes: list[int], where: float) -> None:
    at = round(len(stream) * where)
    farewell, relayed = followed(cut(stream[:at], sizes)), stream[:at]
    assert not farewell.frames.lost
    assert not farewell.frames.midway or told(farewell) == b""
    for piece in cut(stream[at:], sizes) if farewell.frames.midway else ():
        taken = farewell.frames.finish(piece)
        relayed += piece[:taken]
        if not farewell.frames.midway:
            break
        assert taken == len(piece)
    assert stream.startswith(relayed)
    *before, status, last = judged(relayed + told(farewell))
    assert Close.parse(last.data) == Close(1000, "")
    assert (before, status.data) == (judged(relayed), b"\x03" + STATUS)


@given(streams)
def test_it_makes_no_difference_how_the_bytes_come(stream: bytes) -> None:
    single = Frames()
    for at in range(min(len(stream), 300)):
        whole = Frames()
        whole.feed(stream[:at])
        assert (whole.midway, whole.lost) == (single.midway, False)
        single.feed(stream[at : at + 1])


# --- hostile ones


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_of_any_bytes_what_we_add_to_is_valid(pieces: list[bytes]) -> None:
    farewell = followed(pieces)
    assert len(farewell.frames._head) < 10
    if words := told(farewell):
        assert judged(b"".join(pieces) + words)[-1].opcode is Opcode.CLOSE


frames = st.builds(
    lambda first, second, more: bytes((first, second)) + more,
    st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0x09, 0x83, 0x8B, 0xC2, 0x92]),
    st.sampled_from([0, 1, 2, 125, 126, 127, 128, 129, 254, 255]),
    st.binary(max_size=130),
)


@given(st.lists(frames, max_size=5), sizes)
def test_of_broken_frames_what_we_add_to_is_valid(parts: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(parts)
    if words := told(followed(cut(stream, sizes))):
        assert judged(stream + words)[-1].opcode is Opcode.CLOSE


HUGE = b"\x82\x7f" + (1 << 63).to_bytes(8, "big")


@pytest.mark.parametrize(
    "nonsense",
    [
        message(1, b"masked", masked=True),
        b"\xc2\x01x",
        b"\xc9\x00",
        b"\x83\x00",
        b"\x8b\x00",
        b"\x09\x00",
        b"\x89\x7e\x00\x7e" + bytes(126),
        b"\x80\x01x",
        b"\x02\x01x\x82\x01x",
        b"\x82\x7e\x00\x7d" + bytes(125),
        b"\x82\x7f" + (65_535).to_bytes(8, "big"),
        HUGE,
        b"HTTP/1.1 200 OK\r\n\r\n",
        encode(CLOSE, b"\x03\xe8", masked=False),
    ],
    ids=range(14),  # masks are random: the same test needs the same name in every process
)
@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
def test_what_is_no_frame_of_a_servers_or_its_last_is_not_added_to(nonsense: bytes, size: int) -> None:
    good = message(1, b"good")
    farewell = followed(cut(good + nonsense + good, [size]))
    assert farewell.frames.lost
    assert not farewell.frames.midway
    assert told(farewell) == b""


def test_a_frame_of_4_gib_is_followed_without_keeping_it() -> None:
    farewell = followed([b"\x82\x7f" + (1 << 32).to_bytes(8, "big")])
    piece = bytes(1 << 20)
    for _ in range(1 << 12):
        assert farewell.frames.midway
        farewell.feed(piece)
    assert told(farewell)


# --- what is said


def test_the_status_goes_to_the_error_channel_of_exec_and_attach() -> None:
    for subresource in ("exec", "attach"):
        for protocol in (b"v4.channel.k8s.io", V5):
            farewell = farewell_of(subresource, [(b"sec-websocket-protocol", protocol)])
            assert farewell is not None
            status, close = judged(told(farewell))
            assert (status.opcode, status.data) == (Opcode.BINARY, b"\x03" + STATUS)
            assert Close.parse(close.data) == Close(1000, "")


def test_in_base64_where_that_was_chosen() -> None:
    farewell = farewell_of("exec", [(b"sec-websocket-protocol", b"v4.base64.channel.k8s.io")])
    assert farewell is not None
    status, close = judged(told(farewell))
    assert (status.opcode, status.data[:1]) == (Opcode.TEXT, b"3")
    assert json.loads(base64.b64decode(status.data[1:])) == {"kind": "Status"}
    assert Close.parse(close.data) == Close(1000, "")


@pytest.mark.parametrize(
    ("subresource", "protocol"),
    [
        ("portforward", b"SPDY/3.1+portforward.k8s.io"),
        ("portforward", b"v4.channel.k8s.io"),  # there, channel 3 is another thing
        ("exec", b"channel.k8s.io"),
        ("exec", b"v3.channel.k8s.io"),
    ],
)
def test_elsewhere_the_close_says_why(subresource: str, protocol: bytes) -> None:
    farewell = farewell_of(subresource, [(b"sec-websocket-protocol", protocol)])
    assert farewell is not None
    (close,) = judged(told(farewell))
    assert Close.parse(close.data) == Close(1008, WORDS)


@pytest.mark.parametrize("long", ["x" * 300, "é" * 300, "x" + "é" * 300, "\ud800" * 300])
def test_a_long_reason_is_cut_to_what_a_close_holds(long: str) -> None:
    (close,) = judged(Farewell(b"").words(STATUS, long))
    parsed = Close.parse(close.data)
    assert 120 <= len(close.data) - 2 <= 123
    assert long.replace("\ud800", "?").startswith(parsed.reason)


def test_an_extension_may_change_what_frames_are() -> None:
    headers = [(b"sec-websocket-protocol", V5), (b"sec-websocket-extensions", b"permessage-deflate")]
    assert farewell_of("exec", headers) is None


def test_an_applications_own_websocket_is_left_alone() -> None:
    assert farewell_of("proxy", [(b"sec-websocket-protocol", V5)]) is None


def test_without_a_choice_or_with_two_there_is_no_status() -> None:
    for headers in ([], [(b"sec-websocket-protocol", V5)] * 2):
        farewell = farewell_of("exec", headers)
        assert farewell is not None
        assert [frame.opcode for frame in judged(told(farewell))] == [Opcode.CLOSE]
