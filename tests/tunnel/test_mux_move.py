"""MOVE in frames, at each end, and nonsense in every form (docs/protocol.md, 7)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.joined_lone import (
    EXEC,
    GET,
    OK,
    POST,
    SWITCH,
    Lone,
    credit,
    data,
    end,
    lone_agent,
    lone_stub,
    move,
    ping,
    request,
    reset,
    reset_ack,
    response,
)
from tunnel import frames
from tunnel.errors import Hop, ProtocolError, Reason
from tunnel.frames import FLAG_CONFIRM, FLAG_DECLINE, FLAG_OFFER, encode
from tunnel.limits import MIB
from tunnel.link import Link
from tunnel.ports import RequestBlock, ResponseBlock

GONE = (Hop.CLIENT, Reason.CANCELLED, "gone")
WATCH = RequestBlock(b"GET", b"/", [], long=True)


def offered(block: RequestBlock = WATCH) -> tuple[Lone, Any, Link]:
    """An agent that has offered an own link."""
    core = lone_agent()
    own = core.own()
    assert core.hear(request(1, block)) == ["own 1: OFFER 1"]
    return core, core.opened[0][0], own


def moved_stub() -> tuple[Lone, Any, Link]:
    """A stub that has confirmed."""
    core = lone_stub()
    core.open(POST)
    own = core.own()
    said = core.hear(move(1, FLAG_OFFER), link=own)
    assert said == ["MOVE 1", "own 1: CONFIRM 1", "own 1: CREDIT 1 262144"]
    return core, core.mux.exchanges[1], own


# --- the agent


def test_the_agent_moves_when_it_is_confirmed() -> None:
    core, exchange, own = offered()
    exchange.send_response(OK)
    exchange.send_data(b"early")
    assert core.written() == ["HEAD 1 200", "DATA 1 5"]
    assert core.hear(move(1, FLAG_CONFIRM), link=own) == ["MOVE 1"]
    exchange.send_data(b"late")
    exchange.send_end()
    assert core.written() == ["own 1: DATA 1 4 END"]
    assert core.mux.free == [own], "both directions have ended"


def test_what_it_had_queued_goes_over_the_own_link() -> None:
    core, exchange, own = offered()
    exchange.send_response(OK)
    exchange.send_data(bytes(100_000))
    core.written()
    said = core.hear(move(1, FLAG_CONFIRM), credit(1, 262_144), link=own)
    assert said == ["MOVE 1", f"own 1: DATA 1 {100_000 - 65_536}"]


def test_the_101_waits_for_a_move_that_is_under_way() -> None:
    core, exchange, own = offered(EXEC)
    exchange.send_response(SWITCH)
    exchange.send_data(b"opaque")
    assert core.written() == []
    said = core.hear(move(1, FLAG_CONFIRM), link=own)
    assert said == ["MOVE 1", "own 1: CREDIT 1 262144", "own 1: HEAD 1 101", "own 1: DATA 1 6"]


@pytest.mark.parametrize("how", ["declined", "lost"])
def test_the_101_goes_where_the_exchange_stays(how: str) -> None:
    core, exchange, own = offered(EXEC)
    exchange.send_response(SWITCH)
    exchange.send_data(b"opaque")
    if how == "declined":
        said = core.hear(move(1, FLAG_DECLINE), link=own)
        assert core.mux.free == [own]
    else:
        own.close("broken")
        said = core.written()
    assert said == ["HEAD 1 101", "DATA 1 6"]


def test_the_stubs_move_may_come_before_its_confirmation() -> None:
    core, _, own = offered(EXEC)
    core.hear(move(1))
    assert core.hear(move(1, FLAG_CONFIRM), data(1, b"abc"), link=own) == ["MOVE 1", "own 1: CREDIT 1 262144"]
    assert core.sinks[1].events == ["data 3"]


def test_frames_on_the_own_link_wait_for_the_move() -> None:
    core, _, own = offered(EXEC)
    core.hear(data(1, b"1"))
    core.hear(move(1, FLAG_CONFIRM), data(1, b"22"), link=own)
    core.hear(data(1, b"333"))
    core.hear(data(1, b"4444"), end(1), link=own)
    assert core.sinks[1].events == ["data 1", "data 3"]
    core.hear(move(1))
    assert core.sinks[1].events == ["data 1", "data 3", "data 6", "end"]


def test_what_ended_while_it_was_offered_frees_the_link() -> None:
    for answer in (FLAG_CONFIRM, FLAG_DECLINE):
        core, exchange, own = offered()
        exchange.send_response(ResponseBlock(200, [], ended=True))
        core.written()
        assert core.mux.exchanges == {}
        assert core.mux.free == []
        assert core.hear(move(1, answer), link=own) == []
        assert core.mux.free == [own]
        assert core.hear(request(2, WATCH)) == ["own 1: OFFER 2"]


@pytest.mark.parametrize(("answer", "kept"), [(FLAG_CONFIRM, False), (FLAG_DECLINE, True)])
def test_what_was_reset_while_it_was_offered(answer: int, kept: bool) -> None:
    core, exchange, own = offered()
    exchange.cancel(*GONE)
    exchange.released()
    core.hear(reset_ack(1))
    assert core.mux.exchanges == {}
    core.hear(move(1, answer), link=own)
    assert core.mux.free == ([own] if kept else [])
    assert bool(core.closed) is not kept


def test_a_confirmed_exchange_whose_own_link_is_lost_is_reset() -> None:
    core, exchange, own = offered(EXEC)
    core.hear(move(1, FLAG_CONFIRM), link=own)
    own.close("broken")
    assert core.written() == ["RESET 1 AGENT LINK_LOST"]
    assert core.sinks[1].events == ["reset AGENT LINK_LOST"]
    exchange.released()
    core.hear(move(1), reset_ack(1))
    assert core.mux.exchanges == {}


def test_a_move_whose_own_link_is_gone_already_is_reset() -> None:
    core, _, own = offered(EXEC)
    own.close("broken")
    assert core.hear(move(1)) == ["RESET 1 AGENT LINK_LOST"]


def test_an_exchange_whose_offer_was_lost_is_not_offered_again() -> None:
    """A MOVE that comes later may answer the offer that was lost, and would be taken for that of the new one."""
    core, exchange, own = offered()
    own.close("broken")
    core.own(2)
    exchange.send_response(OK)
    exchange.send_data(bytes(100_000))
    assert "OFFER" not in str(core.written())


def test_a_reset_on_a_lost_own_link_is_said_again() -> None:
    core, exchange, own = offered()
    core.hear(move(1, FLAG_CONFIRM), link=own)
    exchange.cancel(*GONE)
    assert core.written() == ["own 1: RESET 1 CLIENT CANCELLED"]
    own.close("broken")
    assert core.written() == ["RESET 1 AGENT LINK_LOST"]
    exchange.released()
    core.hear(reset_ack(1))
    assert core.mux.exchanges == {}


def test_a_reset_is_acknowledged_on_the_link_that_it_came_on() -> None:
    """The agent's RESET comes on the shared link, and its own link is dead, though nobody here has noticed yet."""
    core, _, _ = moved_stub()
    assert core.hear(reset(1)) == ["RESET+ACK 1"]


def test_an_own_link_after_a_reset_is_not_used_again() -> None:
    core, exchange, own = offered()
    core.hear(move(1, FLAG_CONFIRM), link=own)
    assert core.hear(reset(1), link=own) == []
    exchange.released()
    assert core.written() == ["own 1: RESET+ACK 1"]
    assert core.closed == {1: "the own link has done its work"}
    assert core.mux.free == []


def test_a_reset_of_what_has_just_ended_spoils_a_free_link() -> None:
    core, exchange, own = offered()
    core.hear(move(1, FLAG_CONFIRM), link=own)
    exchange.send_response(ResponseBlock(200, [], ended=True))
    core.written()
    assert core.mux.free == [own]
    own.receive(reset(1))
    assert core.closed == {1: "a RESET was left on the own link"}
    assert core.mux.free == []
    assert core.written() == ["own 1: RESET+ACK 1"]


def test_a_worn_link_is_replaced() -> None:
    core, exchange, own = offered()
    core.hear(move(1, FLAG_CONFIRM), credit(1, 2 * MIB), link=own)
    exchange.send_response(OK)
    for _ in range(17):
        exchange.send_data(bytes(64 * 1024))
        core.written()
    exchange.send_end()
    core.written()
    core.written()
    assert core.closed == {1: "the own link has done its work"}


def test_who_waits_gets_the_next_link_and_more_are_asked_for() -> None:
    core = lone_agent()
    core.hear(request(1, WATCH), request(2, WATCH), request(3, WATCH))
    assert core.wanted == 3
    core.opened[1][0].cancel(*GONE)
    assert [exchange.id for exchange in core.mux.waiting] == [1, 3]
    core.written()
    one = core.own(1)
    assert core.written() == ["own 1: OFFER 1"]
    one.close("broken")
    assert core.wanted == 4, "somebody still waits"
    core.own(2)
    assert core.written() == ["own 2: OFFER 3"]


def test_a_large_answer_is_offered_a_link_and_a_small_one_is_not() -> None:
    core = lone_agent()
    core.own()
    core.hear(request(1))
    core.opened[0][0].send_response(ResponseBlock(200, [(b"content-length", b"65536")]))
    assert core.written() == ["HEAD 1 200"]
    core.hear(request(2))
    core.opened[1][0].send_response(ResponseBlock(200, [(b"content-length", b"65537")]))
    assert core.written() == ["HEAD 2 200", "own 1: OFFER 2"]


@pytest.mark.parametrize("length", [b"", b"-1", b"x", b"9" * 10_000])
def test_a_strange_length_is_no_harm(length: bytes) -> None:
    core = lone_agent()
    core.hear(request(1))
    core.opened[0][0].send_response(ResponseBlock(200, [(b"content-length", length)]))
    assert core.written() == ["HEAD 1 200"]
    assert not core.bugs


# --- the stub


def test_the_stub_moves_when_it_confirms() -> None:
    core, exchange, own = moved_stub()
    exchange.send_data(b"abc")
    assert core.written() == ["own 1: DATA 1 3"]
    core.hear(response(1), data(1, b"x"))
    core.hear(data(1, b"yy"), end(1), link=own)
    assert exchange.sink.events == ["200", "data 1"]
    core.hear(move(1))
    assert exchange.sink.events == ["200", "data 1", "data 2", "end"]
    exchange.send_end()
    assert own.exchange is None


def test_the_stub_declines_what_it_cannot_move() -> None:
    core, _, own = moved_stub()
    two = core.own(2)
    assert core.hear(move(1, FLAG_OFFER), link=two) == ["own 2: DECLINE 1"], "moved already"
    other, _ = core.open(POST)
    assert core.hear(move(2, FLAG_OFFER), link=own) == ["own 1: DECLINE 2"], "the link is taken"
    other.cancel(*GONE)
    core.written()
    assert core.hear(move(2, FLAG_OFFER), link=two) == ["own 2: DECLINE 2"], "RESET"
    core.hear(reset_ack(2))
    assert core.hear(move(2, FLAG_OFFER), link=two) == ["own 2: DECLINE 2"], "closed"
    assert two.exchange is None


def test_a_confirmed_exchange_is_reset_with_its_own_link() -> None:
    core, exchange, own = moved_stub()
    sink = exchange.sink
    own.close("broken")
    assert core.written() == ["RESET 1 STUB LINK_LOST"]
    assert sink.events == ["reset STUB LINK_LOST"]
    assert core.hear(move(1), reset(1)) == ["RESET+ACK 1"]
    core.hear(reset_ack(1))
    assert core.mux.exchanges == {}


# --- nonsense

ON_SHARED = {
    "an offer on the shared link": move(1, FLAG_OFFER),
    "a confirmation on the shared link": move(1, FLAG_CONFIRM),
    "a decline on the shared link": move(1, FLAG_DECLINE),
    "two flags": move(1, FLAG_OFFER | FLAG_CONFIRM),
    "a payload": encode(frames.MOVE, 0, 1, b"x"),
    "an id that was never opened": move(9),
    "id 0": move(0),
    "a MOVE of what was not offered": move(1),
}
ON_OWN = {
    "a MOVE on an own link": move(1),
    "two flags": move(1, FLAG_CONFIRM | FLAG_DECLINE),
    "a payload": encode(frames.MOVE, FLAG_OFFER, 1, b"x"),
    "an offer of an id that was never opened": move(9, FLAG_OFFER),
    "DATA of an exchange that is elsewhere": data(1),
    "HEAD of an exchange that is elsewhere": response(1),
    "END of an exchange that is elsewhere": end(1),
    "RESET of an exchange that is elsewhere": reset(1),
    "CREDIT of an exchange that is elsewhere": credit(1, 100_000),
    "DATA of a closed exchange": data(2),
    "a new exchange": request(10),
    "a control message": encode(frames.CONTROL, 0, 0, b'{"kind": "drain"}'),
    "ACK": encode(frames.ACK, 0, 1),
}


def ready(side: str) -> tuple[Lone, Link]:
    """Exchange 1 is open on the shared link, 2 is closed, and an own link is free."""
    if side == "stub":
        core = lone_stub()
        core.open(POST)
        core.open(GET)
        core.hear(response(2), end(2))
        return core, core.own()
    core = lone_agent()
    core.hear(request(1, POST), request(2, GET))
    core.opened[1][0].send_response(ResponseBlock(204, [], ended=True))
    core.written()
    return core, core.own()


@pytest.mark.parametrize("side", ["stub", "agent"])
@pytest.mark.parametrize("what", ON_SHARED)
def test_nonsense_on_the_shared_link(what: str, side: str) -> None:
    core, _ = ready(side)
    with pytest.raises(ProtocolError):
        core.hear(ON_SHARED[what])


@pytest.mark.parametrize("side", ["stub", "agent"])
@pytest.mark.parametrize("what", ON_OWN)
def test_nonsense_on_an_own_link(what: str, side: str) -> None:
    core, own = ready(side)
    with pytest.raises(ProtocolError):
        core.hear(ON_OWN[what], link=own)


@pytest.mark.parametrize("side", ["stub", "agent"])
def test_what_an_own_link_may_carry_without_an_exchange(side: str) -> None:
    core, own = ready(side)
    assert core.hear(ping(), credit(2, 10), reset(2), reset_ack(2), encode(0x90), link=own)[0] == "own 1: RESET+ACK 2"


@pytest.mark.parametrize("flag", [FLAG_CONFIRM, FLAG_DECLINE])
def test_an_answer_to_an_offer_comes_once_and_for_what_was_offered(flag: int) -> None:
    core, _, own = offered()
    core.hear(request(2))
    with pytest.raises(ProtocolError):
        core.hear(move(2, flag), link=own)
    core, _, own = offered()
    core.hear(move(1, flag), link=own)
    with pytest.raises(ProtocolError):
        core.hear(move(1, flag), link=own)


def test_a_stub_that_moves_and_declines() -> None:
    core, _, own = offered(EXEC)
    core.hear(move(1))
    with pytest.raises(ProtocolError):
        core.hear(move(1, FLAG_DECLINE), link=own)


def test_a_second_move_of_the_same_direction() -> None:
    core, _, own = offered(EXEC)
    core.hear(move(1, FLAG_CONFIRM), link=own)
    core.hear(move(1))
    with pytest.raises(ProtocolError, match="twice"):
        core.hear(move(1))
    core, _, own = moved_stub()
    core.hear(move(1))
    with pytest.raises(ProtocolError, match="twice"):
        core.hear(move(1))


def test_an_offer_on_the_link_that_the_exchange_has() -> None:
    core, _, own = moved_stub()
    with pytest.raises(ProtocolError):
        core.hear(move(1, FLAG_OFFER), link=own)


def test_frames_on_the_shared_link_behind_the_move() -> None:
    core, _, _ = moved_stub()
    core.hear(response(1), move(1))
    with pytest.raises(ProtocolError, match="wrong link"):
        core.hear(data(1))


def test_frames_on_the_own_link_before_the_confirmation() -> None:
    core, _, own = offered(EXEC)
    with pytest.raises(ProtocolError, match="wrong link"):
        core.hear(data(1), link=own)


def test_too_many_frames_before_the_move() -> None:
    core, _, own = moved_stub()
    head = response(1, ResponseBlock(103, [], interim=True))
    with pytest.raises(ProtocolError, match="before its MOVE"):
        core.hear(*[head] * 65, link=own)


def test_unknown_flags_of_a_move_are_ignored() -> None:
    core, _, own = offered()
    assert core.hear(move(1, FLAG_CONFIRM | 0xF0), link=own) == ["MOVE 1"]
