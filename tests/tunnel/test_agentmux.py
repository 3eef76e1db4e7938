"""What an agent takes, and what it refuses; fragments of heads; draining."""

from __future__ import annotations

import pytest

from tests.support.joined_lone import POST, data, end, lone_agent, ping, request, reset_ack
from tunnel import frames
from tunnel.block import encode_request
from tunnel.errors import ProtocolError
from tunnel.frames import FLAG_END, FLAG_MORE, encode
from tunnel.limits import LinkLimits
from tunnel.ports import RequestBlock

LONG = RequestBlock(b"GET", b"/" + b"x" * 1000, [(b"a%d" % n, b"y" * 1000) for n in range(60)])


def fragments(number: int = 1, step: int = 16_000) -> list[bytes]:
    flags, payload = encode_request(LONG, 7)
    pieces = [payload[at : at + step] for at in range(0, len(payload), step)]
    more = [flags | FLAG_MORE] * (len(pieces) - 1) + [flags]
    return [encode(frames.HEAD, flag, number, piece) for flag, piece in zip(more, pieces, strict=True)]


def test_a_head_in_fragments() -> None:
    core = lone_agent()
    first, *middle, last = fragments()
    core.hear(first, *middle)
    assert core.opened == []
    core.hear(last)
    assert core.opened[0][1] == LONG
    assert core.mux.shared.begun is None


@pytest.mark.parametrize(
    "second",
    [
        ping(),
        request(2),
        encode(frames.HEAD, FLAG_END | FLAG_MORE, 1, b""),
        encode(frames.HEAD, FLAG_MORE, 1, b"x"),
        encode(frames.HEAD, FLAG_END, 2, b"x"),
        encode(0x80),
        data(1),
        end(1),
    ],
)
def test_what_may_not_stand_between_fragments(second: bytes) -> None:
    core = lone_agent()
    core.hear(fragments()[0])
    with pytest.raises(ProtocolError):
        core.hear(second)


def test_a_head_beyond_its_limit_is_refused_while_it_grows() -> None:
    core = lone_agent()
    core.hear(*[encode(frames.HEAD, FLAG_END | FLAG_MORE, 1, bytes(16_384))] * 6)
    with pytest.raises(ProtocolError, match="beyond its limit"):
        core.hear(encode(frames.HEAD, FLAG_END | FLAG_MORE, 1, b"x"))


def test_one_exchange_too_many_is_refused_and_not_processed() -> None:
    core = lone_agent()
    core.hear(*(request(number) for number in range(1, 101)))
    assert core.hear(request(101)) == ["RESET 101 AGENT OVERLOADED"]
    assert len(core.opened) == 100


def test_exchanges_beyond_all_bounds_end_the_session() -> None:
    core = lone_agent(limits=LinkLimits(remembered_resets=50))
    core.hear(*(request(number) for number in range(1, 151)))
    with pytest.raises(ProtocolError, match="beyond all bounds"):
        core.hear(request(151))


def test_a_drained_agent_finishes_what_it_has() -> None:
    core = lone_agent()
    own = core.own()
    core.hear(request(1, POST))
    core.mux.drain()
    assert core.closed == {1: "draining"}
    assert own.closed
    assert core.hear(request(2)) == ["RESET 2 AGENT DRAINING"]
    core.hear(reset_ack(2), data(1), end(1))
    core.opened[0][0].send_end()
    assert core.sinks[1].events == ["data 1", "end"]
    assert core.mux.exchanges == {}


def test_links_that_come_or_are_free_while_it_drains_are_closed() -> None:
    core = lone_agent()
    core.mux.drain()
    core.own()
    assert core.closed == {1: "the own link has done its work"}
    assert core.mux.free == []


def test_the_end_of_the_session_forgets_who_waited() -> None:
    core = lone_agent()
    core.hear(request(1, RequestBlock(b"GET", b"/", [], long=True)))
    assert len(core.mux.waiting) == 1
    core.mux.close("over")
    core.opened[0][0].released()
    assert core.mux.waiting == {}
    assert core.mux.exchanges == {}


@pytest.mark.parametrize("kind", [0x00, 0x0B, 0x7F])
def test_unknown_types_that_matter(kind: int) -> None:
    with pytest.raises(ProtocolError, match="unknown"):
        lone_agent().hear(encode(kind))


def test_unknown_types_that_do_not() -> None:
    core = lone_agent()
    assert core.hear(encode(0x80, 0xFF, 2**64 - 1, b"x" * 60_000), encode(0xFF)) == []
