"""RESET in every order, and sinks that misbehave."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.joined_lone import (
    GET,
    OK,
    POST,
    Lone,
    credit,
    data,
    end,
    lone_agent,
    lone_stub,
    request,
    reset,
    reset_ack,
    response,
)
from tunnel import frames
from tunnel.errors import ExchangeReset, Hop, ProtocolError, Reason
from tunnel.frames import FLAG_END, encode
from tunnel.ports import RequestBlock, ResponseBlock

GONE = (Hop.CLIENT, Reason.CANCELLED, "gone")


def answering(block: RequestBlock = POST) -> tuple[Lone, Any]:
    core = lone_agent()
    core.hear(request(1, block))
    return core, core.opened[0][0]


def test_our_reset_is_over_when_it_is_acknowledged() -> None:
    core = lone_stub()
    exchange, sink = core.open(POST)
    exchange.cancel(*GONE)
    assert core.written() == ["RESET 1 CLIENT CANCELLED"]
    assert core.hear(response(1), data(1), end(1)) == []
    assert 1 in core.mux.exchanges
    assert core.hear(reset_ack(1)) == []
    assert core.mux.exchanges == {}
    assert sink.events == []


def test_the_peers_reset_is_acknowledged_at_once_at_the_stub() -> None:
    core = lone_stub()
    _, sink = core.open(POST)
    assert core.hear(reset(1, Reason.UNREACHABLE)) == ["RESET+ACK 1"]
    assert sink.events == ["reset AGENT UNREACHABLE"]
    assert core.mux.exchanges == {}


@pytest.mark.parametrize(("hop", "read"), [(1, "AGENT"), (2, "AGENT"), (3, "AGENT"), (4, "APISERVER"), (5, "AGENT")])
def test_an_agent_speaks_for_nobody_but_itself_and_its_api_server(hop: int, read: str) -> None:
    core = lone_stub()
    _, sink = core.open(POST)
    core.hear(encode(frames.RESET, 0, 1, bytes((hop, Reason.CANCELLED))))
    assert sink.events == [f"reset {read} CANCELLED"]


def test_an_agents_words_are_printable() -> None:
    core = lone_stub()
    told: list[ExchangeReset] = []
    _, sink = core.open(POST)
    sink.on_reset = told.append  # type: ignore[assignment, method-assign]
    words = "no\r\nway\x1b[31m\u202egnp \u2028\0é \ufffd".encode() + b"\xff"
    core.hear(encode(frames.RESET, 0, 1, b"\x03\x01" + words))
    assert told[0].message == "no  way [31m gnp   é \ufffd\ufffd"


def test_an_agent_believes_its_stub() -> None:
    core, _ = answering()
    core.hear(encode(frames.RESET, 0, 1, b"\x05\x01a\nb"))
    assert core.sinks[1].events == ["reset CLIENT CANCELLED"]


def test_the_agent_acknowledges_when_its_upstream_is_closed() -> None:
    core, exchange = answering()
    assert core.hear(reset(1)) == []
    assert core.sinks[1].events == ["reset CLIENT CANCELLED"]
    assert core.hear(data(1), end(1), credit(1, 100_000)) == []
    exchange.released()
    assert core.written() == ["RESET+ACK 1"]
    assert core.mux.exchanges == {}
    exchange.released()
    assert core.written() == []


def test_crossing_resets_acknowledge_each_other() -> None:
    core = lone_stub()
    exchange, sink = core.open(POST)
    exchange.cancel(*GONE)
    core.written()
    assert core.hear(reset(1)) == ["RESET+ACK 1"]
    assert 1 in core.mux.exchanges
    core.hear(reset_ack(1))
    assert core.mux.exchanges == {}
    assert sink.events == []


@pytest.mark.parametrize(
    "order", ["ack reset released", "reset ack released", "released ack reset", "reset released ack"]
)
def test_crossing_resets_at_the_agent_in_every_order(order: str) -> None:
    core, exchange = answering()
    exchange.cancel(*GONE)
    assert core.written() == ["RESET 1 CLIENT CANCELLED"]
    said: list[str] = []
    for step in order.split():
        if step == "released":
            exchange.released()
            said += core.written()
        elif 1 in core.mux.exchanges:
            said += core.hear(reset(1) if step == "reset" else reset_ack(1))
    expected = [] if order == "released ack reset" else ["RESET+ACK 1"]
    assert said == expected
    assert core.mux.exchanges == {}
    assert core.hear(reset(1)) == ["RESET+ACK 1"]


def test_a_reset_of_a_closed_id_is_answered_and_its_ack_is_not() -> None:
    core, exchange = answering(GET)
    exchange.send_response(ResponseBlock(204, [], ended=True))
    core.written()
    assert core.mux.exchanges == {}
    assert core.hear(reset(1)) == ["RESET+ACK 1"]
    assert core.hear(reset_ack(1)) == []


def test_a_reset_behind_an_end() -> None:
    core, exchange = answering()
    core.hear(data(1, b"x", FLAG_END))
    core.hear(reset(1))
    assert core.sinks[1].events == ["data 1", "end", "reset CLIENT CANCELLED"]
    exchange.released()
    assert core.written() == ["RESET+ACK 1"]


def test_an_ack_that_nobody_asked_for() -> None:
    core, _ = answering()
    with pytest.raises(ProtocolError):
        core.hear(reset_ack(1))


def test_after_a_reset_nothing_is_sent_any_more() -> None:
    core, exchange = answering()
    exchange.cancel(*GONE)
    core.written()
    exchange.send_response(OK)
    assert exchange.send_data(b"x")
    exchange.send_end()
    exchange.consumed(100)
    exchange.cancel(*GONE)
    assert core.written() == []


def test_what_was_queued_is_dropped() -> None:
    core = lone_stub()
    exchange, _ = core.open(POST)
    assert not exchange.send_data(bytes(200_000))
    assert exchange.held == 200_000
    core.written()
    assert exchange.held == 200_000 - 65_536
    exchange.cancel(*GONE)
    assert core.written() == ["RESET 1 CLIENT CANCELLED"]
    assert exchange.held == 0


def test_an_exchange_whose_head_was_never_written_is_simply_gone() -> None:
    core = lone_stub()
    core.mux.shared.paused = True
    for give_up in ("cancel", "fail"):
        exchange, sink = core.open()
        if give_up == "cancel":
            exchange.cancel(*GONE)
        else:
            exchange.fail(ExchangeReset(*GONE))
        assert sink.events == ([] if give_up == "cancel" else ["reset CLIENT CANCELLED"])
        assert core.mux.exchanges == {}
    core.mux.shared.resume()
    assert core.written() == []


def test_a_cancel_after_the_end_is_harmless() -> None:
    core = lone_stub()
    exchange, sink = core.open()
    core.hear(response(1), end(1))
    exchange.cancel(*GONE)
    assert core.written() == []
    assert sink.events == ["200", "end"]


def test_a_request_that_was_answered_before_it_was_sent_is_stopped() -> None:
    core = lone_stub()
    exchange, sink = core.open(POST)
    exchange.send_data(bytes(100_000))
    exchange.send_end()
    core.written()
    assert core.hear(response(1), end(1)) == ["RESET 1 STUB STOPPED"]
    assert sink.events == ["200", "end"]
    core.hear(reset_ack(1))
    assert core.mux.exchanges == {}


def test_a_refused_upgrade_ends_the_request() -> None:
    core = lone_stub()
    _, sink = core.open(RequestBlock(b"GET", b"/", [(b"upgrade", b"websocket")], upgrade=True))
    assert core.hear(response(1, ResponseBlock(403, []))) == ["END 1"]
    core.hear(data(1), end(1))
    assert sink.events == ["403", "data 1", "end"]
    assert core.mux.exchanges == {}


@pytest.mark.parametrize("where", ["200", "data", "end"])
def test_a_sink_that_raises_harms_its_own_exchange_alone(where: str) -> None:
    core = lone_stub()
    _, bad = core.open(POST)
    _, good = core.open(POST)

    def raise_it(event: str) -> None:
        if event.startswith(where):
            raise RuntimeError("a bug")

    bad.on_event = raise_it
    said = core.hear(response(1), data(1), end(1), response(2), data(2), end(2))
    assert said == ["RESET 1 STUB INTERNAL"]
    assert len(core.bugs) == 1
    assert bad.events[-1] == "reset STUB INTERNAL"
    assert good.events == ["200", "data 1", "end"]
    core.hear(reset_ack(1))
    assert list(core.mux.exchanges) == [2]


def test_a_sink_that_raises_while_it_is_told_of_the_end() -> None:
    core, _ = answering()

    def raise_it(_event: str) -> None:
        raise RuntimeError("a bug")

    core.sinks[1].on_event = raise_it
    assert core.hear(reset(1)) == ["RESET+ACK 1"]
    assert core.mux.exchanges == {}
    assert len(core.bugs) == 1


def test_a_sink_that_raises_from_within_the_writing() -> None:
    core = lone_stub()
    exchange, sink = core.open(POST)
    core.hear(credit(1, 1 << 20))

    def raise_it(event: str) -> None:
        if event == "writable":
            raise RuntimeError("a bug")

    sink.on_event = raise_it
    assert not exchange.send_data(bytes(70_000))
    assert core.written() == ["DATA 1 16384"] * 3 + ["RESET 1 STUB INTERNAL"]
    assert sink.events == ["writable", "reset STUB INTERNAL"]


def test_sinks_may_do_anything_from_within_the_writing() -> None:
    core = lone_stub()
    exchange, sink = core.open(POST)
    other, _ = core.open(POST)
    core.hear(credit(1, 1 << 20), credit(2, 1 << 20))
    core.mux.shared.paused = True
    assert not exchange.send_data(bytes(80_000))
    other.send_data(bytes(30_000))

    def act(_event: str) -> None:
        other.cancel(*GONE)
        core.mux.open(GET, sink)
        exchange.send_data(b"more")
        exchange.send_end()

    sink.on_event = act
    core.mux.shared.resume()
    lines = [*core.written(), *core.written()]
    assert "RESET 2 CLIENT CANCELLED" in lines
    assert "HEAD 3 GET END" in lines
    assert lines[-1].startswith("DATA 1")
    assert lines[-1].endswith("END")
    assert sink.events == ["writable"]


def test_a_sink_that_cancels_from_within_its_data() -> None:
    core = lone_stub()
    exchange, sink = core.open(POST)
    sink.on_event = lambda event: exchange.cancel(*GONE) if event.startswith("data") else None
    assert core.hear(response(1), data(1, b"x", FLAG_END)) == ["RESET 1 CLIENT CANCELLED"]
    assert sink.events == ["200", "data 1"]


def test_a_handler_that_raises() -> None:
    core = lone_agent()

    def handle(*_: object) -> Any:
        raise RuntimeError("a bug")

    core.mux.handler = handle
    assert core.hear(request(1)) == ["RESET 1 AGENT INTERNAL"]
    core.hear(reset_ack(1))
    assert core.mux.exchanges == {}
    assert len(core.bugs) == 1


def test_a_handler_that_answers_or_cancels_at_once() -> None:
    core = lone_agent()

    def handle(exchange: Any, _head: RequestBlock) -> Any:
        if exchange.id == 1:
            exchange.send_response(ResponseBlock(204, [], ended=True))
        else:
            exchange.cancel(*GONE)
            exchange.released()
        return object()

    core.mux.handler = handle
    assert core.hear(request(1), request(2)) == ["HEAD 1 204 END", "RESET 2 CLIENT CANCELLED"]
    core.hear(reset_ack(2))
    assert core.mux.exchanges == {}


def test_a_message_handler_that_raises() -> None:
    core = lone_stub()
    core.mux.on_message = "no function"
    core.hear(b"\x01\0\0\0\0\x0d\0\0\0\0\0\0\0\0" + b'{"kind": "a"}')
    assert len(core.bugs) == 1
    assert not core.closed


def test_a_head_that_is_too_large_for_the_link_ends_its_exchange_here() -> None:
    core, exchange = answering()
    exchange.send_response(ResponseBlock(200, [(b"a", b"x" * 100_000)]))
    assert core.written() == ["RESET 1 AGENT TOO_LARGE"]


def test_the_end_of_the_session_is_told_to_all_even_where_one_raises() -> None:
    core = lone_stub()
    sinks = [core.open(POST)[1] for _ in range(3)]

    def raise_it(_event: str) -> None:
        raise RuntimeError("a bug")

    sinks[0].on_event = raise_it
    core.mux.close("over")
    assert [sink.events for sink in sinks] == [["reset STUB LINK_LOST"]] * 3
    assert core.closed == {0: "over"}
    assert len(core.bugs) == 1
    with pytest.raises(ExchangeReset):
        core.open()


def test_half_of_a_hijack_is_not_kept_open() -> None:
    core = lone_stub()
    exchange, sink = core.open(RequestBlock(b"GET", b"/", [(b"upgrade", b"websocket")], upgrade=True))
    core.hear(response(1, ResponseBlock(101, [(b"upgrade", b"websocket")], upgrade=True)))
    exchange.send_data(bytes(70_000))
    core.written()
    core.hear(end(1))
    core.sweep(9)
    assert sink.events == ["101", "writable", "end"]
    assert core.sweep(1.1)[-1] == "RESET 1 STUB TIMEOUT"
    assert sink.events[-1] == "reset STUB TIMEOUT"


def test_a_hijack_that_ends_both_ways_is_forgotten() -> None:
    core = lone_stub()
    exchange, _ = core.open(RequestBlock(b"GET", b"/", [(b"upgrade", b"websocket")], upgrade=True))
    core.hear(response(1, ResponseBlock(101, [(b"upgrade", b"websocket")], upgrade=True)), end(1))
    exchange.send_end()
    assert core.mux.exchanges == {}
    assert "RESET" not in str(core.sweep(11))
