"""PING at 10 s of silence, gone at 30; acknowledgements, and suspect sessions (docs/protocol.md, 4 and 9)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.joined_lone import (
    GET,
    POST,
    Lone,
    credit,
    data,
    lone_agent,
    lone_stub,
    move,
    ping,
    request,
    reset_ack,
    response,
)
from tunnel import frames
from tunnel.errors import ProtocolError
from tunnel.exchange import Receiving, TunnelExchange
from tunnel.frames import FLAG_MORE, FLAG_OFFER, encode
from tunnel.limits import Timing
from tunnel.link import Link
from tunnel.liveness import Liveness, Verdict
from tunnel.silent import SILENT


def answered(core: Lone) -> bytes:
    """The PONG to the core's PING."""
    raw = b"".join(core.mux.shared.take())
    at = raw.index(encode(frames.PING, 0, 0, bytes(8))[: frames.HEADER_SIZE])
    return encode(frames.PONG, 0, 0, raw[at + frames.HEADER_SIZE : at + frames.HEADER_SIZE + 8])


def test_a_silent_own_link_is_pinged_at_10_s_and_dead_at_30() -> None:
    live = Liveness(Timing(), 0.0)
    verdicts = []
    for tenth in range(1, 301):
        verdicts.append(live.sweep(False, tenth / 10))
        if verdicts[-1] is Verdict.PING:
            live.ping(tenth / 10)
    assert [(index + 1) / 10 for index, verdict in enumerate(verdicts) if verdict is Verdict.PING] == [10.0, 20.0]
    assert verdicts.index(Verdict.DEAD) == 299


def test_whatever_is_heard_counts_and_a_busy_own_link_is_not_pinged() -> None:
    live = Liveness(Timing(), 0.0)
    assert {live.sweep(True, float(second)) for second in range(100)} == {Verdict.FINE}


def test_the_shared_link_is_measured_when_it_is_busy_too() -> None:
    live = Liveness(Timing(), 0.0)
    verdicts = [live.sweep(True, float(second), measured=True) for second in (9, 10)]
    assert verdicts == [Verdict.FINE, Verdict.PING]


def test_a_round_trip_is_measured_by_the_answer_to_the_last_ping() -> None:
    live = Liveness(Timing(), 0.0)
    assert not live.pong(bytes(8), 0.5)
    first = live.ping(1.0)
    last = live.ping(2.0)
    assert not live.pong(first, 2.1)
    assert live.pong(last, 2.25)
    assert live.rtt == pytest.approx(0.25)
    assert not live.pong(last, 9.0)


def test_a_dead_shared_link_ends_the_session() -> None:
    core = lone_stub()
    _, sink = core.open()
    core.sweep(10)
    core.sweep(19.9)
    assert not core.closed
    core.sweep(0.1)
    assert core.closed[0] == "nothing was heard for 30 s"
    assert sink.events[-1].endswith("LINK_LOST") or sink.events[-1].endswith("UNACKNOWLEDGED")


def test_an_agent_that_dies_with_a_request_not_acknowledged_ends_in_order() -> None:
    """Both are due in the same sweep: the end of the session, and a PING because of the request."""
    core = lone_stub()
    core.sweep(29.5)
    _, sink = core.open()
    core.sweep()
    assert 1 in core.mux._unacknowledged
    core.mux.timing = replace(core.mux.timing, ack_deadline=0.5)
    core.sweep(0.5)
    assert core.closed[0] == "nothing was heard for 30 s"
    assert sink.events == ["reset STUB LINK_LOST"]


def test_what_is_overdue_may_end_the_session_by_its_ping() -> None:
    core = lone_stub()
    core.mux.shared._bound = 0
    for _ in range(3):
        core.open()
    core.sweep()
    core.mux.shared.paused = True
    core.sweep(1)
    assert core.closed[0] == "the peer does not read its control frames"
    assert not core.bugs


@pytest.mark.parametrize("end", ["stub", "agent"])
def test_a_session_that_has_ended_does_nothing_and_keeps_nothing(end: str) -> None:
    core = lone_stub() if end == "stub" else lone_agent()
    own = core.own()
    if end == "stub":
        core.open(GET)
        core.sweep()
    else:
        core.hear(request(1))
        core.own(2)
        core.mux.waiting[core.opened[0][0]] = None
    mux = core.mux
    mux.close("over")
    assert core.closed == ({0: "over", 1: "over"} if end == "stub" else {0: "over", 1: "over", 2: "over"})
    late = Link(mux, own=True, link_id=9, limits=mux.limits)
    mux.attach(late)
    mux.ping()
    mux.sweep(core.now + 1000)
    mux.on_pong(mux.shared, bytes(8))
    mux.detach(own, "again")
    mux.link_free(own)
    exchange = TunnelExchange(mux, 77, SILENT, Receiving.BODY)
    mux.starved(exchange)
    mux.half_closed(exchange)
    assert late.closed
    assert (mux._liveness, mux._flushing, mux.own_links, mux.exchanges) == ({}, {}, {}, {})
    if end == "stub":
        assert (mux._unacknowledged, list(mux._marks)) == ({}, [])
    else:
        assert (mux.free, mux.waiting) == ([], {})


def test_a_dead_own_link_ends_alone() -> None:
    core = lone_stub()
    own = core.own()
    for _ in range(3):
        core.hear(ping())
        core.sweep(10)
    assert list(core.closed) == [1]
    assert own.closed
    assert core.mux.own_links == {}


def test_a_link_that_cannot_be_written_is_ended_after_30_s() -> None:
    core = lone_stub()
    core.mux.shared.paused = True
    core.sweep(1)
    for _ in range(29):
        core.hear(ping())
        core.sweep(1)
    assert not core.closed
    core.hear(ping())
    core.sweep(1)
    assert core.closed == {0: "nothing could be written for 30 s"}


def test_room_from_time_to_time_is_progress() -> None:
    core = lone_stub()
    for _ in range(100):
        core.mux.shared.paused = True
        core.hear(ping())
        core.sweep(10)
        core.mux.shared.resume()
    assert not core.closed


def test_a_head_is_completed_in_5_s() -> None:
    core = lone_agent()
    core.hear(encode(frames.HEAD, FLAG_MORE, 1, b"x"))
    core.sweep(4.9)
    assert not core.closed
    core.sweep(0.2)
    assert core.closed == {0: "a HEAD was not completed in time"}


# --- acknowledgements


def test_the_agent_acknowledges_all_heads_with_one_frame_of_a_sweep() -> None:
    core = lone_agent()
    core.hear(request(1), request(2), request(5))
    assert core.sweep(0.25) == ["ACK 5"]
    assert core.sweep(0.25) == []


def test_an_overdue_head_is_reset_and_makes_the_session_suspect() -> None:
    core = lone_stub()
    _, sink = core.open()
    core.sweep()
    core.sweep(0.9)
    assert not core.mux.suspect
    assert core.sweep(0.1) == ["PING", "RESET 1 AGENT UNACKNOWLEDGED"]
    assert core.mux.suspect
    assert sink.events == ["reset AGENT UNACKNOWLEDGED"]


def test_the_round_trip_is_added_four_times() -> None:
    core = lone_stub()
    core.mux.ping()
    pong = answered(core)
    core.now += 0.5
    core.hear(pong)
    core.open()
    core.sweep()
    core.sweep(2.9)
    assert not core.mux.suspect
    core.sweep(0.1)
    assert core.mux.suspect


@pytest.mark.parametrize("what", ["response", "credit", "ack", "reset", "move"])
def test_any_frame_of_it_acknowledges_a_head(what: str) -> None:
    core = lone_stub()
    core.open(POST)
    own = core.own()
    core.sweep()
    frame = {
        "response": response(1),
        "credit": credit(1, 100_000),
        "ack": encode(frames.ACK, 0, 1),
        "reset": encode(frames.RESET, 0, 1, b"\x03\x01"),
        "move": move(1, FLAG_OFFER),
    }[what]
    core.hear(frame, link=own if what == "move" else None)
    core.sweep(5)
    assert not core.mux.suspect


def test_an_ack_covers_what_came_before_and_nothing_later() -> None:
    core = lone_stub()
    sinks = [core.open()[1] for _ in range(3)]
    core.sweep()
    core.hear(encode(frames.ACK, 0, 2))
    core.sweep(1)
    assert [sink.events for sink in sinks] == [[], [], ["reset AGENT UNACKNOWLEDGED"]]


def test_the_time_runs_from_the_writing_of_a_head() -> None:
    core = lone_stub()
    core.mux.shared.paused = True
    _, sink = core.open()
    for _ in range(8):
        core.sweep(0.25)
    core.mux.shared.resume()
    assert core.written()[-1].startswith("HEAD 1") or core.written() == []
    for _ in range(4):
        core.sweep(0.25)
    assert sink.events == []
    for _ in range(2):
        core.sweep(0.25)
    assert sink.events == ["reset AGENT UNACKNOWLEDGED"]


@pytest.mark.parametrize("how", ["ack", "response", "pong"])
def test_a_suspect_session_is_trusted_again_when_it_is_heard(how: str) -> None:
    core = lone_stub()
    core.open(GET)
    core.sweep()
    core.hear(encode(frames.ACK, 0, 1))
    core.open(GET)
    core.sweep(0.1)
    core.now += 1
    core.mux.sweep(core.now)
    assert core.mux.suspect
    pong = answered(core)
    core.hear(reset_ack(2), ping())
    assert core.mux.suspect
    core.hear({"ack": encode(frames.ACK, 0, 2), "response": response(1), "pong": pong}[how])
    assert not core.mux.suspect


def test_acks_that_make_no_sense() -> None:
    core = lone_stub()
    core.open()
    with pytest.raises(ProtocolError):
        core.hear(encode(frames.ACK, 0, 2))
    with pytest.raises(ProtocolError):
        core.hear(encode(frames.ACK, 0, 1, b"x"))
    with pytest.raises(ProtocolError):
        lone_agent().hear(encode(frames.ACK, 0, 0))


@pytest.mark.parametrize("payload", [b"", b"1234567", b"123456789"])
def test_pings_of_a_wrong_size(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="PING"):
        lone_stub().hear(ping(payload))


def test_data_does_not_need_an_acknowledged_head() -> None:
    core = lone_stub()
    _, sink = core.open(POST)
    core.hear(response(1), data(1))
    core.sweep()
    core.sweep(2)
    assert sink.events == ["200", "data 1"]
