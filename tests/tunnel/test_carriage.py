"""WebSocket as a carriage: one stream, however it is cut; nothing but the one path, subprotocol and kind of message."""

from __future__ import annotations

import os
from random import Random

import pytest
from websockets.frames import Frame, Opcode

from tunnel.carriage import MAX_MESSAGE, WebSocketClient, WebSocketServer
from tunnel.errors import ProtocolError
from tunnel.handshake import PATH, SUBPROTOCOL
from tunnel.websocket import MAX_EMPTY

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def opened() -> tuple[WebSocketClient, WebSocketServer]:
    client, server = WebSocketClient("tunnel.example:8443"), WebSocketServer()
    assert server.receive(client.begin()) == []
    assert client.receive(server.pending()) == []
    assert client.open
    assert server.open
    return client, server


def masked(opcode: Opcode, payload: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


def get(path: str = PATH, **headers: str) -> bytes:
    fields = {
        "Host": "a",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def test_the_handshake_says_what_the_page_says() -> None:
    first = WebSocketClient("tunnel.example:8443").begin().decode()
    assert first.startswith(f"GET {PATH} HTTP/1.1\r\nHost: tunnel.example:8443\r\n")
    assert f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n" in first
    assert "Extensions" not in first
    assert "Authorization" not in first


def test_bytes_arrive_in_both_directions_whatever_their_number() -> None:
    client, server = opened()
    for size in (1, 125, 126, 65_535, 65_536, 65_537, 300_000):
        raw = os.urandom(size)
        assert b"".join(server.receive(client.wrap([raw[: size // 2], raw[size // 2 :]]))) == raw
        assert b"".join(client.receive(server.wrap([raw]))) == raw


def test_views_are_as_good_as_bytes() -> None:
    client, server = opened()
    view = memoryview(b"abcdef" * 20_000)
    assert b"".join(server.receive(client.wrap([view[:100_000]]))) == bytes(view[:100_000])  # type: ignore[list-item]


def test_a_message_is_never_larger_than_the_peer_takes() -> None:
    client, server = opened()
    raw = client.wrap([bytes(1_000_000)])
    assert sum(len(piece) for piece in server.receive(raw)) == 1_000_000
    assert max(len(piece) for piece in opened()[1].receive(raw)) == MAX_MESSAGE


def test_one_byte_at_a_time_from_the_first_to_the_last() -> None:
    client, server = WebSocketClient("a"), WebSocketServer()
    for byte in client.begin():
        server.receive(bytes([byte]))
    for byte in server.pending() + server.wrap([b"challenge"]):
        for piece in client.receive(bytes([byte])):
            assert piece == b"challenge"
    pieces = [piece for byte in client.wrap([b"hello"]) for piece in server.receive(bytes([byte]))]
    assert b"".join(pieces) == b"hello"


def test_what_follows_the_handshake_at_once_is_not_lost() -> None:
    client, server = WebSocketClient("a"), WebSocketServer()
    server.receive(client.begin())
    assert client.receive(server.pending() + server.wrap([b"challenge"])) == [b"challenge"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (get("/"), b"404"),
        (get(PATH + "/"), b"404"),
        (get(PATH + "?x"), b"404"),
        (get(Sec_WebSocket_Protocol=""), b"400"),
        (get(Sec_WebSocket_Protocol="link.kulvert.dev.v2, x"), b"400"),
        (get(Upgrade=""), b"426"),
        (get(Sec_WebSocket_Key=""), b"400"),
        (get(Sec_WebSocket_Version="12"), b"400"),
    ],
)
def test_refused_handshakes_get_an_answer(raw: bytes, status: bytes) -> None:
    server = WebSocketServer()
    with pytest.raises(ProtocolError):
        server.receive(raw)
    assert server.pending().startswith(b"HTTP/1.1 " + status)
    assert not server.open


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"GET / HTTP/2\r\n\r\n"]
)
def test_what_is_no_http(raw: bytes) -> None:
    server = WebSocketServer()
    with pytest.raises(ProtocolError):
        server.receive(raw)
    assert not server.open


def test_an_open_carriage_keeps_nothing_of_its_handshake() -> None:
    """The library's parsers and heads are several kB in each of thousands of links."""
    for carriage in opened():
        kept = {type(one).__module__.partition(".")[0] for one in vars(carriage).values()}
        assert "websockets" not in kept
        assert "RequestReader" not in {type(one).__name__ for one in vars(carriage).values()}


def test_one_subprotocol_among_others() -> None:
    server = WebSocketServer()
    server.receive(get(Sec_WebSocket_Protocol=f"x, {SUBPROTOCOL}"))
    assert server.open


def test_compression_is_not_negotiated() -> None:
    server = WebSocketServer()
    server.receive(get(Sec_WebSocket_Extensions="permessage-deflate"))
    assert b"Extensions" not in server.pending()


def test_a_handshake_without_an_end_is_not_kept() -> None:
    server = WebSocketServer()
    line = b"x: " + b"a" * 1000 + b"\r\n"
    server.receive(get()[:-2])
    for _ in range(15):
        server.receive(line)
    with pytest.raises(ProtocolError, match="without an end"):
        server.receive(line * 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
def test_an_address_without_a_link_behind_it(answer: bytes) -> None:
    client = WebSocketClient("a")
    client.begin()
    with pytest.raises(ProtocolError, match="WebSocket"):
        client.receive(answer)


def test_a_server_that_speaks_websocket_but_no_link() -> None:
    client, server = WebSocketClient("a"), WebSocketServer()
    server.receive(client.begin())
    answer = server.pending().replace(f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n".encode(), b"")
    with pytest.raises(ProtocolError, match="does not speak"):
        client.receive(answer)


def test_a_text_message_ends_it() -> None:
    for fin in (True, False):
        _, server = opened()
        with pytest.raises(ProtocolError, match="text"):
            server.receive(masked(Opcode.TEXT, b"hi", fin))
        assert b"\x03\xeb" in server.pending()


@pytest.mark.parametrize(
    "raw",
    [
        masked(Opcode.BINARY, bytes(MAX_MESSAGE + 1)),
        masked(Opcode.BINARY, bytes(40_000), fin=False) + masked(Opcode.CONT, bytes(30_000)),
        masked(Opcode.CONT, b"x"),
        masked(Opcode.BINARY, b"x", fin=False) + masked(Opcode.BINARY, b"y"),
        Frame(Opcode.BINARY, b"x").serialize(mask=False),
        b"\xc2\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
    ],
    ids=["too large", "too large in fragments", "no first", "two firsts", "not masked", "a reserved bit", "unknown"],
)
def test_what_ends_the_connection(raw: bytes) -> None:
    _, server = opened()
    with pytest.raises(ProtocolError, match="WebSocket"):
        server.receive(raw)
    assert not server.open


def test_a_large_message_is_refused_before_it_is_kept() -> None:
    _, server = opened()
    with pytest.raises(ProtocolError, match="WebSocket"):
        server.receive(b"\x82\xff" + (10**9).to_bytes(8, "big") + bytes(4))


def test_fragments_are_one_stream() -> None:
    _, server = opened()
    raw = masked(Opcode.BINARY, b"ab", fin=False) + masked(Opcode.PING, b"p") + masked(Opcode.CONT, b"cd")
    assert b"".join(server.receive(raw)) == b"abcd"
    assert server.pending() == Frame(Opcode.PONG, b"p").serialize(mask=False)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.CONT])
def test_a_flood_without_data_ends_it(opcode: Opcode) -> None:
    _, server = opened()
    if opcode is Opcode.CONT:
        server.receive(masked(Opcode.BINARY, b"x", fin=False))
    flood = masked(opcode, b"", fin=opcode is not Opcode.CONT)
    server.receive(flood * MAX_EMPTY)
    with pytest.raises(ProtocolError, match="without data"):
        server.receive(flood)


def test_pings_between_data_are_no_flood() -> None:
    _, server = opened()
    for _ in range(3):
        server.receive(masked(Opcode.PING, b"") * MAX_EMPTY + masked(Opcode.BINARY, b"x"))


def test_a_close_is_answered_and_seen_behind_what_came_before_it() -> None:
    client, server = opened()
    assert server.receive(client.wrap([b"last"]) + client.close()) == [b"last"]
    assert not server.open
    assert server.pending() == b"\x88\x02\x03\xe8"
    assert server.close() == b""


def test_after_our_own_close_the_peers_is_waited_for() -> None:
    client, server = opened()
    close = client.close()
    assert (client.open, client.ended) == (False, False)
    assert client.receive(server.wrap([b"too late"]) + b"\x89\x01x") == []
    assert (client.pending(), client.ended) == (b"", False)
    assert server.receive(close) == []
    assert server.ended
    assert client.receive(server.pending()) == []
    assert client.ended
    assert client.pending() == b""


def test_after_our_own_close_nonsense_ends_it_too() -> None:
    client, _ = opened()
    client.close()
    assert client.receive(b"\xff\x01x") == []
    assert client.ended


def test_random_bytes_are_refused_or_wait_for_more() -> None:
    rng = Random(5)
    for _ in range(300):
        _, server = opened()
        try:
            assert server.receive(rng.randbytes(rng.randint(1, 300))) == []
        except ProtocolError:
            assert not server.open


@pytest.mark.parametrize(
    "line", [b"Host: b\r\n", b"Content-Length: 0\r\nContent-Length: 0\r\n", b"X: a\r\n b\r\n", b"X : a\r\n"]
)
def test_a_head_that_a_load_balancer_could_read_otherwise_is_refused(line: bytes) -> None:
    server = WebSocketServer()
    with pytest.raises(ProtocolError):
        server.receive(get()[:-2] + line + b"\r\n")
    assert server.pending().startswith(b"HTTP/1.1 400 ")
    assert not server.open
