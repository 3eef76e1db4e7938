"""A peer that says anything: the core raises ProtocolError or goes on, holds little, and tells no sink any nonsense."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.support.joined_lone import (
    EXEC,
    GET,
    OK,
    POST,
    SWITCH,
    Lone,
    Recorder,
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
from tunnel.exchange import Receiving
from tunnel.frames import FLAG_MORE, encode
from tunnel.limits import KIB, LinkLimits
from tunnel.link import Link
from tunnel.ports import RequestBlock

LIMITS = LinkLimits(shared_credit=4 * KIB, own_credit=8 * KIB, own_credit_max=16 * KIB, send_queue=4 * KIB)
WATCH = RequestBlock(b"GET", b"/", [], long=True)
MOST_EXCHANGES = 12


def legal(rng: Random, core: Lone) -> tuple[Link, bytes]:
    """What a proper peer could say now, and where."""
    mux = core.mux
    choices: list[tuple[Link, bytes]] = [(mux.shared, ping())]
    if mux.answers and len(mux.exchanges) < MOST_EXCHANGES:
        choices.append((mux.shared, request(min(mux.highest + 1, 2**64 - 1), rng.choice((GET, POST, EXEC, WATCH)))))
    if mux.exchanges:
        choices += _of(rng, mux, rng.choice([*mux.exchanges.values()]))
    return rng.choice(choices)


def _of(rng: Random, mux: Any, exchange: Any) -> list[tuple[Link, bytes]]:
    number, where = exchange.id, exchange.receive_link
    if not mux.answers and not exchange.started:
        return []
    found = [(mux.shared, credit(number, min(exchange._limit + 100, 2**64 - 1)))]
    if rng.random() < 0.1:
        found.append((mux.shared, reset(number)))
    if exchange.reset_sent:
        found = [(mux.shared, reset_ack(number))]
    elif exchange.receiving is Receiving.WAIT:
        found.append((where, response(number, rng.choice((OK, SWITCH)))))
    elif exchange.receiving is not Receiving.ENDED:
        size = min(rng.choice((1, 500, 5000)), exchange.granted - exchange._received)
        found.append((where, data(number, bytes(size), rng.choice((0, 0, 1))) if size else end(number)))
    if exchange.offered:
        found.append((exchange.offered, move(number, rng.choice((frames.FLAG_CONFIRM, frames.FLAG_DECLINE)))))
    elif exchange.link.own and not exchange.peer_moved:
        found += [(mux.shared, move(number)), (exchange.link, data(number))]
    elif not mux.answers and mux.own_links:
        found.append((rng.choice([*mux.own_links.values()]), move(number, frames.FLAG_OFFER)))
    return found


def illegal(rng: Random, core: Lone) -> tuple[Link, bytes]:
    """Anything, anywhere."""
    mux = core.mux
    number = rng.choice([*mux.exchanges, 0, mux.highest, min(mux.highest + 1, 2**64 - 1), 2**64 - 1])
    raw = rng.choice(
        (
            request(number, POST),
            response(number, rng.choice((OK, SWITCH))),
            data(number, bytes(rng.choice((1, 5000)))),
            end(number),
            reset(number),
            reset_ack(number),
            credit(number, rng.choice((0, 2**64 - 1))),
            move(number, rng.choice((0, 1, 2, 4, 8))),
            encode(frames.ACK, 0, number),
            encode(frames.HEAD, FLAG_MORE, number, b"x"),
            encode(rng.randint(0, 255), rng.randint(0, 255), number, rng.randbytes(rng.choice((0, 2, 8, 20)))),
        )
    )
    return rng.choice([mux.shared, *mux.own_links.values()]), raw


def act(core: Lone, rng: Random) -> None:
    """What our own side may do meanwhile."""
    exchanges = list(core.mux.exchanges.values())
    if not core.mux.answers and len(exchanges) < MOST_EXCHANGES and rng.random() < 0.3:
        exchange, sink = core.open(rng.choice((GET, POST, EXEC, WATCH)))
        core.sinks[exchange.id] = sink
    elif exchanges:
        exchange = rng.choice(exchanges)
        does: list[Callable[[], object]] = [
            lambda: exchange.send_data(bytes(rng.choice((1, 3000)))) if exchange.held < 8 * KIB else None,
            exchange.send_end,
            lambda: exchange.consumed(min(500, exchange._received - exchange._consumed)),
            lambda: exchange.cancel(Hop.CLIENT, Reason.CANCELLED, ""),
            exchange.released,
        ]
        if core.mux.answers and not exchange.started:
            does.append(lambda: exchange.send_response(OK))
        rng.choice(does)()


def check_sink(sink: Recorder) -> None:
    """Heads, then data, then one end or one reset, and nothing behind it but a reset behind the end."""
    ends = [index for index, event in enumerate(sink.events) if event.startswith(("end", "reset"))]
    assert len(ends) <= 2
    if ends:
        rest = [event for event in sink.events[ends[0] + 1 :] if event != "writable"]
        assert not rest or (rest[0].startswith("reset") and len(rest) == 1)
    finals = [event for event in sink.events if event[:3].isdigit() and not event.startswith("103")]
    assert len(finals) <= 1
    if finals and "data" in " ".join(sink.events):
        assert sink.events.index(finals[0]) < [event[:4] for event in sink.events].index("data")


def check_bounds(core: Lone) -> None:
    for exchange in core.mux.exchanges.values():
        assert exchange.held <= 16 * KIB + 8 * KIB + 3000
        assert exchange._sent <= exchange._limit
        assert exchange._received <= exchange.granted
    for link in [core.mux.shared, *core.mux.own_links.values()]:
        assert link.backlog <= 64 * KIB + 64 * KIB + 256 * KIB + 64 * KIB


def attack(core: Lone, seed: int, reads: bool) -> int:
    """Speak until the core has enough. Gives how many frames that took."""
    rng = Random(seed)
    for count in range(2000):
        while len(core.mux.own_links) < 2:
            core.own(100 + count + len(core.mux.own_links))
        for link in (core.mux.shared, *core.mux.own_links.values()):
            link.paused = not reads and count > 50
        link, raw = (illegal if rng.random() < 0.01 else legal)(rng, core)
        try:
            core.hear(raw, link=link)
        except ProtocolError as error:
            link.close(str(error))
        if core.mux.closed_reason is not None:
            return count
        act(core, rng)
        if not count % 7:
            core.sweep(0.1)
            check_bounds(core)
    return 2000


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("make", [lone_stub, lone_agent])
def test_a_peer_that_says_anything(make: Callable[..., Lone], reads: bool, seeds: range) -> None:
    lengths = []
    for seed in range(30 * len(seeds)):
        core = make(limits=LIMITS)
        try:
            lengths.append(attack(core, seed, reads))
            core.mux.close("over")
            for exchange, _ in core.opened:
                exchange.released()
            for sink in core.sinks.values():
                check_sink(sink)
            assert not core.bugs
            assert not core.mux.exchanges
            assert not core.mux.own_links
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
    assert sum(lengths) > 20 * len(lengths), "the attacks never get anywhere"


@pytest.mark.parametrize("make", [lone_stub, lone_agent])
def test_random_bytes(make: Callable[..., Lone]) -> None:
    rng = Random(1)
    for _ in range(500):
        with pytest.raises(ProtocolError):
            make().hear(b"\x01\0\0\0\0\x0b" + rng.randbytes(2000))


def test_a_rapid_reset_keeps_no_more_than_the_slots() -> None:
    """HEAD, RESET, HEAD, RESET …, while the upstreams close slowly: what is not released keeps its slot."""
    core = lone_agent()
    said = []
    for number in range(1, 150):
        said += core.hear(request(number, POST), reset(number))
    assert len(core.opened) == 100
    assert said.count("RESET 101 AGENT OVERLOADED") == 1
    for exchange, _ in core.opened:
        exchange.released()
    assert [line.split()[0] for line in core.written()] == ["RESET+ACK"] * 100
    assert len(core.mux.exchanges) == 49, "these were refused, and their RESET waits for its acknowledgement"


def test_one_byte_in_each_frame_is_not_one_call_for_each() -> None:
    core = lone_agent()
    core.hear(request(1, POST))
    core.mux.shared.receive(data(1) * 4000)
    assert core.sinks[1].events == ["data 4000"]


def test_credit_beyond_all_numbers_is_only_credit() -> None:
    core = lone_stub()
    exchange, _ = core.open(POST)
    core.hear(credit(1, 2**64 - 1))
    exchange.send_data(bytes(100_000))
    assert exchange.held == 100_000
