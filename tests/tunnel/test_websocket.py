"""Our reading of WebSocket frames is that of the library that makes the handshake, or stricter."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State

from tunnel import websocket
from tunnel.websocket import BINARY, CLOSE, CONT, PING, PONG, WebSocketFailed, WebSocketReader

LIMIT = 200


def ours(pieces: list[bytes], masked: bool = True) -> tuple[bytes, list[tuple[int, bytes]], bool]:
    """(stream, answers, failed)."""
    answers: list[tuple[int, bytes]] = []
    reader = WebSocketReader(masked=masked, max_message=LIMIT, answer=lambda *answer: answers.append(answer))
    stream = b""
    for piece in pieces:
        try:
            stream += b"".join(reader.feed(piece))
        except WebSocketFailed:
            return stream, answers, True
    return stream, answers, False


def theirs(raw: bytes) -> tuple[bytes, bool]:
    """(stream, failed), as the library's server reads it."""
    protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=LIMIT)
    protocol.receive_data(raw)
    frames = [event for event in protocol.events_received() if isinstance(event, Frame)]
    stream = b"".join(bytes(frame.data) for frame in frames if frame.opcode in (BINARY, CONT))
    return stream, protocol.parser_exc is not None


frames = st.builds(
    lambda opcode, size, fin, mask: (opcode, size, fin, mask),
    st.sampled_from([BINARY, BINARY, BINARY, CONT, CONT, PING, PONG, CLOSE, 0x3, 0xB]),
    st.sampled_from([0, 1, 2, 50, 125, 126, 150, 201]),
    st.booleans(),
    st.sampled_from([True] * 9 + [False]),
)


def written(described: list[tuple[int, int, bool, bool]]) -> bytes:
    raw = b""
    for number, (opcode, size, fin, mask) in enumerate(described):
        payload = bytes([number % 256]) * size if opcode != CLOSE else b"\x03\xe8"
        head = bytes([opcode | 0x80 * fin])
        size = len(payload)
        long = bytes([0x80 * mask | 126]) + size.to_bytes(2, "big") if size > 125 else bytes([0x80 * mask | size])
        raw += head + long + (b"\0\0\0\0" if mask else b"") + payload
    return raw


def library_counts_a_control_frame(described: list[tuple[int, int, bool, bool]]) -> bool:
    """The library counts a control frame's payload towards the fragmented message around it; RFC 6455, 5.4 does not."""
    message = 0
    for opcode, size, fin, _ in described:
        if opcode in (PING, PONG) and message + size > LIMIT:
            return True
        if opcode in (BINARY, CONT):
            message = 0 if fin else message + size
    return False


@given(st.lists(frames, max_size=8))
def test_we_take_what_the_library_takes_and_refuse_what_it_refuses(
    described: list[tuple[int, int, bool, bool]],
) -> None:
    assume(not library_counts_a_control_frame(described))
    raw = written(described)
    stream, failed = theirs(raw)
    got, _, refused = ours([raw])
    assert refused == failed
    if not failed:
        assert got == stream
    one_by_one, _, again = ours([raw[at : at + 1] for at in range(len(raw))])
    assert again == failed
    assert failed or one_by_one == got


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
@pytest.mark.parametrize("masked", [True, False])
def test_the_library_reads_what_we_write(size: int, masked: bool) -> None:
    payload = Random(size).randbytes(size)
    protocol = Protocol(Side.SERVER if masked else Side.CLIENT, state=State.OPEN)
    protocol.receive_data(websocket.encode(BINARY, payload, masked=masked))
    (frame,) = protocol.events_received()
    assert isinstance(frame, Frame)
    assert bytes(frame.data) == payload


def test_keys_are_new_for_each_frame() -> None:
    assert len({websocket.encode(BINARY, b"x", masked=True)[2:6] for _ in range(100)}) == 100


def test_a_large_frame_is_refused_by_its_header() -> None:
    for size in (LIMIT + 1, 2**63, 2**64 - 1):
        assert ours([b"\x82\xff" + size.to_bytes(8, "big")])[2]
    assert ours([b"\x02\xfe\0\xc8" + bytes(4 + 200) + b"\x80\x81"])[2], "fragments are one message"


def test_after_a_close_nothing_is_read() -> None:
    raw = b"\x88\x82\0\0\0\0\x03\xe8" + websocket.encode(BINARY, b"late", masked=True)
    assert ours([raw, raw]) == (b"", [(CLOSE, b"\x03\xe8")], False)


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_a_close_without_a_code_is_answered_without_one(payload: bytes) -> None:
    raw = bytes([0x88, 0x80 | len(payload)]) + bytes(4) + payload
    assert ours([raw])[1] == [(CLOSE, b"")]


def test_a_message_in_many_reads_is_copied_once() -> None:
    """What is not whole is only gathered: work must not grow with the square of its size."""
    reader = WebSocketReader(masked=False, max_message=1 << 20, answer=lambda *_: None)
    raw = websocket.encode(BINARY, bytes(1 << 20), masked=False)
    pieces = [piece for at in range(0, len(raw), 16) for piece in reader.feed(raw[at : at + 16])]
    assert [len(piece) for piece in pieces] == [1 << 20]
