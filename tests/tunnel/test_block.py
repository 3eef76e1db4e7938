"""Head blocks say one thing, in one way; everything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel import block
from tunnel.block import decode_request, decode_response, decode_trailers, encode_request, encode_response
from tunnel.errors import HeadError, ProtocolError
from tunnel.frames import FLAG_END, FLAG_INTERIM, FLAG_LONG, FLAG_UPGRADE
from tunnel.head import RequestReader
from tunnel.limits import HeadLimits
from tunnel.ports import Headers, RequestBlock, ResponseBlock

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
VISIBLE = bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100))

names = st.text(TOKEN, min_size=1, max_size=12).map(str.encode)
inner = st.lists(st.sampled_from(VISIBLE + b" \t"), max_size=20).map(bytes)
values = inner.map(lambda value: value.strip(b" \t"))
refused = block.FORBIDDEN_IN_REQUESTS | {b"upgrade"}
headers = st.lists(st.tuples(names, values), max_size=8).map(lambda pairs: [p for p in pairs if p[0] not in refused])
targets = st.lists(st.sampled_from(range(0x21, 0x7F)), max_size=30).map(lambda raw: b"/" + bytes(raw))
methods = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=32).map(str.encode)


@given(methods, targets, headers, st.booleans(), st.booleans(), st.integers(0, 2**64 - 1))
def test_a_request_round_trip(
    method: bytes, target: bytes, pairs: Headers, ended: bool, long: bool, epoch: int
) -> None:
    head = RequestBlock(method, target, pairs, ended, long)
    assert decode_request(*encode_request(head, epoch)) == (epoch, head)


@given(st.integers(200, 999), headers, st.booleans())
def test_a_response_round_trip(status: int, pairs: Headers, ended: bool) -> None:
    head = ResponseBlock(status, pairs, ended=ended)
    assert decode_response(*encode_response(head)) == head


@given(st.binary(max_size=200))
def test_whatever_the_front_door_takes_passes_the_link(junk: bytes) -> None:
    """A head that one end accepts and the other refuses would end the session of everybody."""
    raw = b"GET /x HTTP/1.1\r\nhost: a\r\nx: " + junk.replace(b"\r\n\r\n", b"") + b"\r\n\r\n"
    try:
        head = RequestReader(HeadLimits()).feed(raw)
    except HeadError:
        return
    if head is not None:
        kept = [pair for pair in head.headers if pair[0] not in refused]
        decode_request(*encode_request(RequestBlock(head.method, head.target, kept), 1))


@pytest.mark.parametrize("upgrade", [b"websocket", b"spdy/3.1", b"SPDY/3.1"])
def test_upgrades(upgrade: bytes) -> None:
    head = RequestBlock(b"POST", b"/exec", [(b"upgrade", upgrade)], ended=False, upgrade=True)
    assert decode_request(*encode_request(head, 1))[1] == head
    switch = ResponseBlock(101, [(b"upgrade", upgrade)], upgrade=True)
    assert decode_response(*encode_response(switch)) == switch


def test_an_upgrade_never_says_that_it_has_ended() -> None:
    flags, payload = encode_request(RequestBlock(b"GET", b"/", [(b"upgrade", b"websocket")], upgrade=True), 1)
    assert flags == FLAG_UPGRADE
    with pytest.raises(ProtocolError):
        decode_request(flags | FLAG_END, payload)


def raw_request(lines: bytes, first: bytes = b"GET / \r\n".replace(b" \r", b"\r"), mode: int = 0) -> bytes:
    return bytes(8) + bytes([mode]) + first + lines


REFUSED_LINES = {
    "upper case": b"Accept: x\r\n",
    "no space": b"accept:x\r\n",
    "two spaces": b"accept:  x\r\n",
    "a tab before the value": b"accept: \tx\r\n",
    "a space at the end": b"accept: x \r\n",
    "a space before the colon": b"accept : x\r\n",
    "a folded line": b"accept: x\r\n y\r\n",
    "a bare LF": b"accept: x\nhost: y\r\n",
    "a bare CR": b"accept: x\ry\r\n",
    "NUL": b"accept: x\0y\r\n",
    "another control": b"accept: x\x1by\r\n",
    "DEL": b"accept: x\x7fy\r\n",
    "no name": b": x\r\n",
    "no colon": b"accept\r\n",
    "an empty line": b"\r\n",
    "no end": b"accept: x",
    "a cut end": b"accept: x\r",
    "something behind the end": b"accept: x\r\n\r\n",
    "a non-token name": b"acc(ept: x\r\n",
    "a name of another alphabet": b"acc\xc3\xa4pt: x\r\n",
    "an upgrade without the flag": b"upgrade: websocket\r\n",
    "too many lines": b"a: b\r\n" * 1001,
} | {f"the header {name.decode()}": name + b": x\r\n" for name in sorted(block.FORBIDDEN)}


@pytest.mark.parametrize("what", REFUSED_LINES)
def test_refused_lines(what: str) -> None:
    with pytest.raises(ProtocolError):
        decode_request(0, raw_request(REFUSED_LINES[what]))
    with pytest.raises(ProtocolError):
        decode_response(0, b"\x00\xc8" + REFUSED_LINES[what])
    if "upgrade" not in what:
        with pytest.raises(ProtocolError):
            decode_trailers(REFUSED_LINES[what])


@pytest.mark.parametrize("name", [b"host", b"authorization"])
def test_what_only_requests_must_not_have(name: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(0, raw_request(name + b": x\r\n"))
    assert decode_response(0, b"\x00\xc8" + name + b": x\r\n").headers == [(name, b"x")]


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"GET /\n",
        b"get / \r\n",
        b"GET  /\r\n",
        b"GET x\r\n",
        b"GET *\r\n",
        b"GET http://a/\r\n",
        b"GET / HTTP/1.1\r\n",
        b"GET /\xc3\xa4\r\n",
        b"GET /\0\r\n",
        b"GET /a b\r\n",
        b"G3T /\r\n",
        b"A" * 33 + b" /\r\n",
        b" /\r\n",
    ],
)
def test_refused_request_lines(first: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(0, raw_request(b"", first))


@pytest.mark.parametrize("payload", [b"", bytes(8), raw_request(b"", mode=1), raw_request(b"", mode=255)])
def test_refused_beginnings_of_requests(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(0, payload)


@pytest.mark.parametrize(
    ("status", "flags"),
    [
        (101, 0),
        (200, FLAG_UPGRADE),
        (200, FLAG_INTERIM),
        (103, 0),
        (103, FLAG_INTERIM | FLAG_END),
        (101, FLAG_UPGRADE | FLAG_END),
        (101, FLAG_INTERIM),
        (99, 0),
        (0, 0),
        (1000, 0),
        (65_535, 0),
    ],
)
def test_refused_statuses(status: int, flags: int) -> None:
    lines = b"upgrade: websocket\r\n" if flags & FLAG_UPGRADE else b""
    with pytest.raises(ProtocolError):
        decode_response(flags, status.to_bytes(2, "big") + lines)


@pytest.mark.parametrize(
    "lines", [b"", b"upgrade: h2c\r\n", b"upgrade: websocket\r\nupgrade: websocket\r\n", b"upgrade: websocket, h2c\r\n"]
)
def test_refused_upgrades(lines: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(FLAG_UPGRADE, raw_request(lines))
    with pytest.raises(ProtocolError):
        decode_response(FLAG_UPGRADE, b"\x00\x65" + lines)


@pytest.mark.parametrize("payload", [b"", b"\x00"])
def test_responses_that_are_too_short(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_response(0, payload)


def test_trailers_round_trip_and_their_limits() -> None:
    pairs = [(b"x-checksum", b"1"), (b"x-empty", b"")]
    assert decode_trailers(block.encode_trailers(pairs)) == pairs
    assert decode_trailers(b"") == []
    largest: Headers = [(b"a" * 126, b"b" * 127)] * 32
    assert decode_trailers(block.encode_trailers(largest)) == largest
    for pairs in ([(b"a", b"b")] * 33, [(b"a", b"b" * 9000)]):
        with pytest.raises(ProtocolError):
            decode_trailers(block.encode_trailers(pairs))


def test_long_is_a_flag_of_requests() -> None:
    flags, payload = encode_request(RequestBlock(b"GET", b"/", [], long=True), 1)
    assert flags == FLAG_LONG | FLAG_END
    assert decode_request(flags | 0xC0, payload)[1].long, "unknown flags are ignored"


def test_a_pass_through_has_one_credential_and_every_other_mode_none() -> None:
    head = RequestBlock(b"GET", b"/", [(b"authorization", b"Bearer x")], pass_through=True)
    assert decode_request(*encode_request(head, 1)) == (1, head)
    for lines, mode in ((b"", 1), (b"authorization: a\r\n" * 2, 1), (b"authorization: a\r\n", 0), (b"host: a\r\n", 1)):
        with pytest.raises(ProtocolError):
            decode_request(FLAG_END, raw_request(lines, mode=mode))
    with pytest.raises(ProtocolError, match="unknown mode"):
        decode_request(FLAG_END, raw_request(b"", mode=2))
