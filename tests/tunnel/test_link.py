"""What is written when: control first, then exchanges by turns; and what a link does with useless frames."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.joined_lone import (
    EPOCH,
    OK,
    POST,
    Lone,
    credit,
    data,
    lone_agent,
    lone_stub,
    ping,
    request,
    response,
)
from tunnel import frames
from tunnel.errors import Hop, ProtocolError, Reason
from tunnel.frames import encode
from tunnel.limits import KIB
from tunnel.ports import RequestBlock, ResponseBlock

GRANT = 1 << 20


def posting(core: Lone, count: int) -> list[Any]:
    exchanges = [core.open(POST)[0] for _ in range(count)]
    core.hear(*(credit(exchange.id, GRANT) for exchange in exchanges))
    return exchanges


def test_a_short_exchange_is_one_frame_each_way() -> None:
    core = lone_stub()
    core.mux.open(RequestBlock(b"GET", b"/", []), object())
    assert core.written() == ["HEAD 1 GET END"]
    agent = lone_agent()
    agent.hear(request(1))
    exchange = agent.opened[0][0]
    exchange.send_response(OK)
    exchange.send_data(b"{}")
    exchange.send_end()
    assert agent.written() == ["HEAD 1 200", "DATA 1 2 END"]


def test_end_is_put_on_the_last_frame_where_that_is_its_own() -> None:
    core = lone_stub()
    one, _ = core.open(POST)
    two, _ = core.open(POST)
    one.send_data(b"a")
    two.send_data(b"b")
    one.send_end()
    two.send_end()
    assert core.written() == ["DATA 1 1", "DATA 2 1", "END 1", "END 2"]


def test_end_never_touches_what_was_written_or_a_head_with_flags() -> None:
    core = lone_stub()
    one, _ = core.open(POST)
    one.send_end()
    assert core.written() == ["END 1"]
    two = core.mux.open(RequestBlock(b"GET", b"/", [], ended=False, long=True), object())
    two.send_end()
    assert core.written() == ["HEAD 2 GET", "END 2"]
    agent = lone_agent()
    agent.hear(request(1, POST))
    exchange = agent.opened[0][0]
    exchange.send_response(ResponseBlock(103, [], interim=True))
    exchange.send_end()
    assert agent.written() == ["HEAD 1 103", "END 1"]


def test_end_never_touches_the_last_fragment_of_a_head() -> None:
    core = lone_stub()
    exchange = core.mux.open(RequestBlock(b"PUT", b"/", [(b"a", b"x" * 20_000)], ended=False), object())
    exchange.send_end()
    assert [line[:6] for line in core.written()] == ["HEAD 1", "HEAD 1", "END 1"]


def test_control_frames_overtake_what_waits() -> None:
    core = lone_stub()
    bulk, other = posting(core, 2)
    bulk.send_data(bytes(60_000))
    other.cancel(Hop.CLIENT, Reason.CANCELLED, "")
    core.mux.shared.receive(ping())
    lines = core.written()
    assert lines[:2] == ["RESET 2 CLIENT CANCELLED", "PONG"]
    assert lines[2:] == ["DATA 1 16384"] * 3 + ["DATA 1 10848"]


def test_turns_are_fair_and_slices_small() -> None:
    core = lone_stub()
    exchanges = posting(core, 3)
    core.mux.shared.paused = True
    for exchange in exchanges:
        exchange.send_data(bytes(40 * KIB))
    core.mux.shared.resume()
    assert core.written() == ["DATA 1 16384", "DATA 2 16384", "DATA 3 16384", "DATA 1 16384"]
    assert core.mux.shared.unfinished
    assert core.written()[:4] == ["DATA 2 16384", "DATA 3 16384", "DATA 1 8192", "DATA 2 8192"]


def test_a_newcomer_does_not_wait_behind_all_of_a_bulk() -> None:
    core = lone_stub()
    (bulk,) = posting(core, 1)
    bulk.send_data(bytes(200 * KIB))
    assert core.written() == ["DATA 1 16384"] * 4
    core.mux.open(POST, object())
    assert "HEAD 2 POST" in core.written()[:2]


def test_own_links_have_larger_slices() -> None:
    core = lone_stub()
    (exchange,) = posting(core, 1)
    own = core.own()
    core.hear(encode(frames.MOVE, frames.FLAG_OFFER, 1), link=own)
    exchange.send_data(bytes(100 * KIB))
    assert core.written() == ["own 1: DATA 1 65536"]
    assert core.written() == ["own 1: DATA 1 36864"]


def test_credits_are_replaced_by_newer_ones() -> None:
    core = lone_stub()
    exchange, _ = core.open()
    core.hear(response(1))
    for _ in range(3):
        core.mux.shared.receive(data(1, bytes(20_000)))
        exchange.consumed(20_000)
    assert core.written() == [f"CREDIT 1 {40_000 + 65_536}"]


def test_only_the_newest_ping_is_answered() -> None:
    core = lone_stub()
    core.mux.shared.receive(b"".join(ping(b"%08d" % number) for number in range(1000)))
    raw = b"".join(core.mux.shared.take())
    assert raw == encode(frames.PONG, 0, 0, b"00000999")


@pytest.mark.parametrize("paused", [False, True])
def test_control_frames_have_a_bound_where_the_peer_does_not_read(paused: bool) -> None:
    core = lone_stub()
    exchanges = posting(core, 7000)
    core.mux.shared.paused = paused
    for exchange in exchanges:
        exchange.cancel(Hop.CLIENT, Reason.CANCELLED, "x" * 50)
    assert bool(core.closed) is paused
    if paused:
        assert core.closed[0] == "the peer does not read its control frames"
        assert core.mux.shared.backlog < 64 * KIB + 64 * KIB + 257 * KIB


@pytest.mark.parametrize(
    "useless",
    [
        ping(),
        encode(frames.PONG, 0, 0, bytes(8)),
        encode(frames.ACK, 0, 1),
        encode(0x80),
        encode(0xFF, 0xFF, 2**64 - 1, b"x"),
        credit(1, 0),
        credit(2, 1),
        data(2),
        encode(frames.END, 0, 2),
        encode(frames.RESET, frames.FLAG_ACK, 2),
        encode(frames.RESET, 0, 2, b"\x01\x01"),
        encode(frames.MOVE, 0, 2),
        response(2),
        encode(frames.CONTROL, 0, 0, b'{"kind": "unheard-of"}'),
    ],
)
def test_a_flood_without_effect_ends_the_link(useless: bytes) -> None:
    core = lone_stub()
    core.open()
    two, _ = core.open()
    two.cancel(Hop.CLIENT, Reason.CANCELLED, "")
    core.hear(encode(frames.RESET, frames.FLAG_ACK, 2))
    core.sweep()
    for _ in range(1000):
        core.hear(useless)
    with pytest.raises(ProtocolError, match="without effect"):
        core.hear(useless)


def test_an_effect_begins_the_count_anew_and_so_does_time() -> None:
    core = lone_stub()
    core.open()
    for number in range(3):
        core.hear(*[ping()] * 1000)
        core.hear(credit(1, 100_000 + number))
    core.hear(*[ping()] * 1000)
    core.sweep(0.25)
    core.hear(*[ping()] * 1000)


def test_an_idle_link_may_live_for_ever() -> None:
    """PINGs and health alone are no flood, however long they go on."""
    core = lone_stub()
    for _ in range(3000):
        core.sweep(10)
        core.hear(ping(), encode(frames.CONTROL, 0, 0, b'{"kind": "health"}'))
    assert not core.closed


def test_neighbouring_data_is_given_as_one() -> None:
    core = lone_agent()
    core.hear(request(1, POST))
    core.hear(*[data(1, b"x")] * 5000, data(1, b"y", frames.FLAG_END))
    assert core.sinks[1].events == ["data 5001", "end"]


def test_joining_stops_at_every_border() -> None:
    core = lone_agent()
    core.hear(request(1, POST), request(2, POST))
    core.hear(data(1), data(1), data(2), data(1), credit(1, 10), data(1), data(1))
    assert core.sinks[1].events == ["data 2", "data 1", "data 2"]
    assert core.sinks[2].events == ["data 1"]
    with pytest.raises(ProtocolError, match="empty DATA"):
        core.hear(data(1), data(1, b""), data(1))


def test_small_pieces_that_wait_are_joined() -> None:
    core = lone_stub()
    exchange, _ = core.open(POST)
    core.mux.shared.paused = True
    for _ in range(60_000):
        exchange.send_data(b"x")
    assert len(exchange._queue) == 15
    core.mux.shared.resume()
    assert sum(int(line.split()[2]) for line in core.written()) == 60_000


def test_a_pause_that_outlives_what_woke_the_link() -> None:
    """What was to be written may be gone when there is room again; the next frame must wake the link all the same."""
    core = lone_stub()
    woken: list[int] = []
    exchange, _ = core.open(POST)
    core.mux.shared.on_output = lambda: woken.append(1)
    core.mux.shared.paused = True
    exchange.send_data(bytes(70_000))
    exchange.send_data(b"x")
    core.mux.shared.forget(exchange)
    core.mux.shared.resume()
    before = len(woken)
    core.mux.ping()
    assert len(woken) == before + 1


def test_ids_are_not_what_they_seem_on_another_epoch() -> None:
    core = lone_agent()
    assert core.hear(request(1, POST, epoch=EPOCH - 1)) == ["RESET 1 AGENT STALE_EPOCH"]
    assert core.opened == []
