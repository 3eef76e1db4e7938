"""Both protocols of exec, decoded by somebody who looks on: in pieces, and never in another way than their ends do."""

from __future__ import annotations

import base64
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.recording.channels import Channel, Decoder, Piece, Size, Sizes, Undecodable
from gateway.recording.spdy import SYN_STREAM, SpdyDecoder, dictionary
from gateway.recording.websocket import WebSocketDecoder
from tests.gateway.execstreams import RESIZE, STDIN, STDOUT, Spdy, fragment, message, size
from tunnel.websocket import BINARY, CLOSE, CONT, PING, PONG, TEXT, encode

V4, V5 = b"v4.channel.k8s.io", b"v5.channel.k8s.io"


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Neighbours of one channel as one."""
    found: list[Piece] = []
    for channel, data in pieces:
        if found and found[-1][0] is channel:
            found[-1] = (channel, found[-1][1] + data)
        else:
            found.append((channel, data))
    return found


def fed(feed: Callable[[bytes], list[Piece]], data: bytes, step: int) -> list[Piece]:
    return joined(piece for at in range(0, len(data), step) for piece in feed(data[at : at + step]))


STEPS = pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])


# --- WebSocket


@STEPS
@pytest.mark.parametrize("protocol", [V4, V5, b"channel.k8s.io", b""])
def test_what_the_terminal_shows_is_found_in_messages_of_every_size(step: int, protocol: bytes) -> None:
    shown = [b"$ ", b"x" * 125, b"y" * 126, b"z" * 70_000, b"end"]
    data = b"".join(message(Channel.STDOUT, one) + encode(PING, b"x", masked=False) for one in shown)
    data += message(Channel.STDERR, b"oops") + message(Channel.ERROR, b"{}")
    found = fed(WebSocketDecoder(protocol).from_cluster, data, step)
    assert found == [(Channel.STDOUT, b"".join(shown)), (Channel.STDERR, b"oops"), (Channel.ERROR, b"{}")]


@STEPS
def test_what_the_client_types_is_unmasked(step: int) -> None:
    data = message(Channel.RESIZE, size(80, 24), masked=True) + encode(PONG, b"", masked=True)
    data += message(Channel.STDIN, b"ls -l\r" * 50, masked=True) + message(255, b"\0", masked=True)
    found = fed(WebSocketDecoder(V5).from_client, data, step)
    assert found == [(Channel.RESIZE, size(80, 24)), (Channel.STDIN, b"ls -l\r" * 50)]


@STEPS
def test_fragments_of_a_cluster_are_one_message_with_pings_between(step: int) -> None:
    data = fragment(BINARY, b"\x01one ", final=False) + encode(PING, b"", masked=False)
    data += fragment(CONT, b"", final=False) + fragment(CONT, b"\x02two", final=True) + message(Channel.STDERR, b"x")
    found = fed(WebSocketDecoder(V4).from_cluster, data, step)
    assert found == [(Channel.STDOUT, b"one \x02two"), (Channel.STDERR, b"x")]


@STEPS
def test_base64_is_decoded(step: int) -> None:
    data = b"".join(
        encode(TEXT, b"1" + base64.b64encode(one), masked=False) for one in (b"a", b"bc", b"def", b"g" * 99)
    )
    found = fed(WebSocketDecoder(b"base64.channel.k8s.io").from_cluster, data, step)
    assert found == [(Channel.STDOUT, b"abcdef" + b"g" * 99)]


@STEPS
def test_nothing_counts_behind_a_close(step: int) -> None:
    for close in (encode(CLOSE, b"", masked=False), encode(CLOSE, b"\x03\xe8bye", masked=False)):
        data = message(Channel.STDOUT, b"a") + close + b"\xff" * 20 + message(Channel.STDOUT, b"b")
        assert fed(WebSocketDecoder(V4).from_cluster, data, step) == [(Channel.STDOUT, b"a")]


@pytest.mark.parametrize(
    ("data", "message_"),
    [
        (fragment(BINARY, b"\x00l", final=False, masked=True), "fragmented"),
        (fragment(CONT, b"\x00l", final=True, masked=True), "out of its order"),
        (message(0, b"ls"), "wrong masking"),
        (b"\xc2" + message(0, b"ls", masked=True)[1:], "reserved bit"),
        (message(9, b"ls", masked=True), "unknown channel"),
        (fragment(0x3, b"\x00", final=True, masked=True), "unknown WebSocket frame"),
        (fragment(0xB, b"", final=True, masked=True), "control frame"),
        (fragment(PING, b"", final=False, masked=True), "control frame"),
        (encode(PING, b"x" * 126, masked=True), "control frame"),
        (struct.pack("!BBQI", 0x82, 0xFF, 1 << 63, 0), "unknown WebSocket frame"),
    ],
    ids=range(10),  # masks are random: the same test needs the same name in every process
)
def test_what_the_ends_of_a_websocket_may_read_in_two_ways_is_not_decoded(data: bytes, message_: str) -> None:
    with pytest.raises(Undecodable, match=message_):
        fed(WebSocketDecoder(V5).from_client, data, 1)


@pytest.mark.parametrize("text", [b"1QQ=", b"1QQ==QQ==", b"1!!!!", b"1Q\nQ=="])
def test_what_is_no_base64_is_not_decoded(text: bytes) -> None:
    for step in (1, 4, 99):
        with pytest.raises(Undecodable):
            fed(WebSocketDecoder(b"v4.base64.channel.k8s.io").from_cluster, encode(TEXT, text, masked=False), step)


# --- SPDY


def test_the_dictionary_is_that_of_spdy_3() -> None:
    assert (len(dictionary()), zlib.adler32(dictionary())) == (1423, 0xE3C6A7C2)


@STEPS
def test_both_ways_of_spdy_are_read(step: int) -> None:
    client, cluster, decoder = Spdy(), Spdy(), SpdyDecoder()
    up = client.open_all() + client.ping() + client.data(RESIZE, size(90, 30)) + client.data(STDIN, b"ls\r")
    up += client.control(9, bytes(8)) + client.control(3, bytes(8)) + client.control(7, bytes(8))
    up += client.control(4, struct.pack("!III", 1, 4, 100)) + client.data(STDIN, b"", flags=1)
    assert fed(decoder.from_client, up, step) == [(Channel.RESIZE, size(90, 30)), (Channel.STDIN, b"ls\r")]
    down = b"".join(cluster.reply(stream) for stream in (1, 3, 5, 7)) + cluster.data(STDOUT, b"x" * 40_000)
    down += cluster.headers(5) + cluster.data(1, b"{}") + cluster.data(STDOUT, b"y", flags=1)
    found = fed(decoder.from_cluster, down, step)
    assert found == [(Channel.STDOUT, b"x" * 40_000), (Channel.ERROR, b"{}"), (Channel.STDOUT, b"y")]


def syn(stream: int, block: bytes) -> bytes:
    return Spdy().control(SYN_STREAM, struct.pack("!IIH", stream, 0, 0) + block)


@pytest.mark.parametrize(
    ("data", "message_"),
    [
        (Spdy().data(5, b"x"), "not opened"),
        (Spdy().open(1, b"data"), "none of exec's"),
        (syn(1, Spdy().block([])), "none of exec's"),
        (Spdy().open(0, b"stdin"), "opened twice"),
        (Spdy().control(6, bytes(8)), "impossible length"),
        (Spdy().control(3, bytes(9)), "impossible length"),
        (Spdy().control(4, struct.pack("!I", 5)), "settings of an impossible length"),
        (Spdy().control(4, b"abc"), "impossible length"),
        (Spdy().control(10, bytes(8)), "unknown SPDY frame"),
        (Spdy().control(6, bytes(4), version=2), "another version"),
        (Spdy().control(SYN_STREAM, bytes(10)), "impossible length"),
        (Spdy().control(SYN_STREAM, bytes(20_000)), "impossible length"),
        (syn(1, b"no zlib at all"), "decompressed"),
        (syn(1, zlib.compress(b"no dictionary")), "end their compression|cut"),
        (syn(1, Spdy().block([(b"streamtype", b"stdin")], count=2)), "cut"),
        (syn(1, Spdy().block([(b"streamtype", b"stdin"), (b"a", b"b")], count=1)), "cut"),
        (syn(1, Spdy().block([(b"streamtype", b"stdin"), (b"streamtype", b"stdout")])), "two ways"),
        (syn(1, Spdy().block([(b"Streamtype", b"stdin")])), "two ways"),
        (syn(1, Spdy().block([(b"streamtype", b"stdin\0stdout")])), "two ways"),
        (syn(1, Spdy().block([(b"streamtype", b"stdin"), (b"bomb", bytes(1 << 20))])), "too large"),
    ],
)
def test_what_spdys_ends_may_read_in_two_ways_is_not_decoded(data: bytes, message_: str) -> None:
    with pytest.raises(Undecodable, match=message_):
        fed(SpdyDecoder().from_client, data, 1)


def test_a_cluster_opens_no_streams_and_nobody_opens_too_many() -> None:
    with pytest.raises(Undecodable, match="none of exec's"):
        SpdyDecoder().from_cluster(Spdy().open(2, b"stdout"))
    client = Spdy()
    data = b"".join(client.open(number, b"stdin") for number in range(1, 100, 2))
    with pytest.raises(Undecodable, match="too many"):
        SpdyDecoder().from_client(data)


# --- both


@given(st.lists(st.binary(max_size=40), max_size=30), st.booleans(), st.booleans())
def test_hostile_bytes_end_in_one_way_only(pieces: list[bytes], spdy: bool, up: bool) -> None:
    decoder: Decoder = SpdyDecoder() if spdy else WebSocketDecoder(V4)
    try:
        for piece in pieces:
            (decoder.from_client if up else decoder.from_cluster)(piece)
    except Undecodable:
        pass


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.binary(min_size=1, max_size=300)), max_size=8), st.data())
def test_however_the_bytes_are_cut_the_pieces_are_the_same(
    messages: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    wire = b"".join(message(channel, content) for channel, content in messages)
    decoder, found, at = WebSocketDecoder(V4), list[Piece](), 0
    while at < len(wire):
        step = data.draw(st.integers(1, 50))
        found += decoder.from_cluster(wire[at : at + step])
        at += step
    assert joined(found) == joined((Channel(channel), content) for channel, content in messages)


@pytest.mark.parametrize("spdy", [True, False])
def test_nothing_of_a_large_message_is_kept(spdy: bool) -> None:
    client, decoder = Spdy(), SpdyDecoder()
    decoder.from_client(client.open_all())
    other = WebSocketDecoder(V4)
    feed = decoder.from_cluster if spdy else other.from_cluster
    feed(struct.pack("!II", STDOUT, 0xFFFFFF) if spdy else struct.pack("!BBQB", 0x82, 127, 0xFFFFFF, 1))
    piece = bytes(16_384)
    tracemalloc.start()
    for _ in range(1000):
        feed(piece)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200_000


@STEPS
def test_sizes_of_a_terminal_come_one_after_the_other(step: int) -> None:
    sizes, data = Sizes(), size(80, 24) + b' {"Width": 1, "Height": 65535}' + size(0, 0)
    found = [one for at in range(0, len(data), step) for one in sizes.feed(data[at : at + step])]
    assert found == [Size(80, 24), Size(1, 65_535), Size(0, 0)]


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"x}",
        b'{"Width":-1,"Height":1}',
        b'{"Width":true,"Height":1}',
        b'{"Width":65536,"Height":1}',
        b"x" * 1100,
    ],
)
def test_a_size_that_is_none_is_not_decoded(data: bytes) -> None:
    with pytest.raises(Undecodable, match="terminal size"):
        Sizes().feed(data)
