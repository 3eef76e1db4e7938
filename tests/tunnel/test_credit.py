"""Credit: how much may be under way, and when there is more of it (docs/protocol.md, 6)."""

from __future__ import annotations

import pytest

from tests.support.joined_lone import (
    EXEC,
    GET,
    OK,
    POST,
    SWITCH,
    credit,
    data,
    lone_agent,
    lone_stub,
    move,
    request,
    response,
)
from tunnel.errors import ProtocolError
from tunnel.frames import FLAG_CONFIRM, FLAG_OFFER
from tunnel.limits import KIB, MIB


def sizes(lines: list[str]) -> list[int]:
    return [int(line.split()[-1]) for line in lines if "DATA" in line]


def test_the_first_credit_is_sent_at_once_and_no_more() -> None:
    core = lone_stub()
    exchange, sink = core.open(POST)
    assert not exchange.send_data(bytes(150_000))
    assert sum(sizes(core.written())) == 65_536
    assert core.written() == []
    assert core.hear(credit(1, 65_537)) == ["DATA 1 1"]
    assert sum(sizes(core.hear(credit(1, 200_000)))) + sum(sizes(core.written())) == 150_000 - 65_537
    assert sink.events == ["writable"]


def test_data_is_split_to_what_is_left() -> None:
    core = lone_stub()
    exchange, _ = core.open(POST)
    exchange.send_data(bytes(10_000))
    exchange.send_data(bytes(10_000))
    core.hear(credit(1, 65_536))
    for _ in range(5):
        exchange.send_data(bytes(10_000))
    assert sizes(core.written())[-1] == 5536
    assert core.hear(credit(1, 65_536 + 1000)) == ["DATA 1 1000"]


def test_a_lower_or_equal_credit_is_ignored() -> None:
    core = lone_stub()
    exchange, _ = core.open(POST)
    exchange.send_data(bytes(70_000))
    core.written()
    assert core.hear(credit(1, 0), credit(1, 65_536)) == []


def test_an_end_waits_for_its_data_and_needs_no_credit() -> None:
    core = lone_stub()
    exchange, _ = core.open(POST)
    exchange.send_data(bytes(60_000))
    exchange.send_end()
    assert core.written()[-1] == "DATA 1 10848 END"
    other, _ = core.open(POST)
    other.send_data(bytes(65_537))
    other.send_end()
    assert "END" not in str(core.written())
    assert core.hear(credit(2, 70_000)) == ["DATA 2 1 END"]


def test_it_is_granted_again_at_half_and_on_consumption() -> None:
    core = lone_agent()
    core.hear(request(1, POST))
    exchange = core.opened[0][0]
    assert core.hear(data(1, bytes(65_536))) == []
    exchange.consumed(32_767)
    assert core.written() == []
    exchange.consumed(1)
    assert core.written() == [f"CREDIT 1 {32_768 + 65_536}"]


def test_none_is_granted_for_what_has_ended() -> None:
    core = lone_agent()
    core.hear(request(1, POST))
    core.hear(data(1, bytes(65_536), 1))
    core.opened[0][0].consumed(65_536)
    assert core.written() == []


@pytest.mark.parametrize("pieces", [[65_537], [65_536, 1], [1] * 65_537])
def test_more_than_the_credit_ends_the_link(pieces: list[int]) -> None:
    core = lone_agent()
    core.hear(request(1, POST))
    for size in pieces[:-1]:
        core.hear(data(1, bytes(size)))
    with pytest.raises(ProtocolError):
        core.hear(data(1, bytes(pieces[-1])))


def test_it_is_absolute_across_a_move() -> None:
    core = lone_agent()
    core.hear(request(1, EXEC))
    exchange = core.opened[0][0]
    exchange.send_response(SWITCH)
    core.written()
    core.hear(data(1, bytes(60_000)))
    exchange.consumed(20_000)
    own = core.own()
    assert core.written() == ["own 1: OFFER 1"]
    said = core.hear(move(1, FLAG_CONFIRM), credit(1, 300_000), link=own)
    assert said == ["MOVE 1", f"own 1: CREDIT 1 {20_000 + 256 * KIB}"]
    core.hear(move(1))
    core.hear(*[data(1, bytes(50_000))] * 4, data(1, bytes(20_000 + 256 * KIB - 260_000)), link=own)
    with pytest.raises(ProtocolError, match="credit"):
        core.hear(data(1), link=own)


def test_what_waits_for_the_move_is_bounded_by_it_too() -> None:
    core = lone_agent()
    core.hear(request(1, EXEC))
    own = core.own()
    core.hear(move(1, FLAG_CONFIRM), link=own)
    core.hear(*[data(1, bytes(64 * KIB))] * 4, link=own)
    assert core.sinks[1].events == []
    assert core.opened[0][0].held == 256 * KIB
    with pytest.raises(ProtocolError, match="credit"):
        core.hear(data(1), link=own)


def test_a_window_doubles_while_it_bounds_the_speed() -> None:
    core = lone_stub()
    exchange, _ = core.open(GET)
    own = core.own()
    core.mux.rtt = 0.1
    core.hear(move(1, FLAG_OFFER), link=own)
    core.hear(response(1, OK), move(1))
    windows = []
    for pause in [0.05] * 8 + [5.0] * 2:
        half = exchange._window // 2
        while half:
            size = min(half, 64 * KIB)
            core.hear(data(1, bytes(size)), link=own)
            half -= size
        core.now += pause
        exchange.consumed(exchange._received - exchange._consumed)
        core.written()
        windows.append(exchange._window // KIB)
    assert windows == [256, 512, 1024, 2048, 4096, 4096, 4096, 4096, 4096, 4096]
    assert exchange.granted - exchange._consumed == 4 * MIB


def test_on_the_shared_link_a_window_never_grows() -> None:
    core = lone_stub()
    exchange, _ = core.open(GET)
    core.hear(response(1))
    for _ in range(50):
        core.hear(data(1, bytes(32 * KIB)))
        exchange.consumed(32 * KIB)
        core.written()
    assert exchange.granted == 50 * 32 * KIB + 64 * KIB


def test_a_slow_reader_pauses_the_writer_and_wakes_it_at_half() -> None:
    core = lone_stub()
    exchange, sink = core.open(POST)
    core.mux.shared.paused = True
    assert exchange.send_data(bytes(65_535))
    assert not exchange.send_data(b"x")
    assert not exchange.send_data(b"x")
    core.mux.shared.resume()
    core.written()
    assert sink.events == ["writable"]
    assert exchange.send_data(b"x")


def test_nobody_is_woken_who_has_ended() -> None:
    core = lone_stub()
    exchange, sink = core.open(POST)
    core.mux.shared.paused = True
    assert not exchange.send_data(bytes(65_536))
    exchange.send_end()
    core.mux.shared.resume()
    core.written()
    assert sink.events == []


def test_a_view_of_a_large_piece_is_not_kept_for_its_rest() -> None:
    core = lone_stub()
    exchange, _ = core.open(POST)
    exchange.send_data(bytes(65_537))
    core.written()
    assert [type(payload) for _, _, payload in exchange._queue] == [bytes]
