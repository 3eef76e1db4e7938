"""What stalls stalls nobody else, and what is held has a bound: no own links, stalled readers, bulk, cancels."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.joined import World
from tests.support.joined_invariants import check_always, check_over
from tests.support.joined_traffic import Plan, Traffic, joined
from tunnel.errors import Hop, Reason
from tunnel.limits import KIB, MIB, LinkLimits

STOP = (Hop.CLIENT, Reason.CANCELLED)
WINDOW = 8 * KIB
LIMITS = LinkLimits(
    shared_credit=WINDOW,
    own_credit=4 * WINDOW,
    own_credit_max=8 * WINDOW,
    send_queue=WINDOW,
    data_slice=2 * KIB,
    transport_buffer=16 * KIB,
)
"""An eighth of what is usual, so that everything waits for credit often."""
PIECE = 2 * KIB
BULK = 100 * MIB
"""Each way through the exec."""


def bound(exchanges: int, capacity: int) -> int:
    """What both cores and the wires may hold: for each exchange a queue (and the piece that filled it), for each wire
    its capacity, what is committed behind it, and one slice; the windows are either in one of these or at the sinks.
    """
    per_link = 2 * (capacity + LIMITS.transport_buffer + LIMITS.data_slice + 4 * KIB)
    return exchanges * (LIMITS.send_queue + PIECE) + per_link


def get_loop(world: World, traffic: Traffic, count: int) -> float:
    """GETs one after another; the longest that one took."""
    longest = 0.0
    for _ in range(count):
        began = world.now
        client = traffic.open(Plan(down=3000, piece=3000))
        assert world.run(partial(getattr, client, "clean"), seconds=20), "a GET waits for ever"
        assert client.whole
        longest = max(longest, world.now - began)
    return longest


def test_stalled_logs_and_a_large_exec_without_own_links_delay_no_get() -> None:
    world, traffic = joined(own_links=0, limits=LIMITS, capacity=32 * KIB)
    stalled = [traffic.open(Plan(down=200 * KIB, long=True, piece=PIECE, reading=-1)) for _ in range(200)]
    bulk = traffic.open(Plan(upgrade=True, up=BULK, down=BULK, piece=PIECE))
    most = 0
    longest = 0.0
    while not bulk.whole:
        longest = max(longest, get_loop(world, traffic, 1))
        most = max(most, world.held())
        check_always(world)
    assert bulk.received == BULK
    assert longest < 0.2, f"a GET took {longest:.3f} s"
    assert 200 * WINDOW < most <= bound(201, world.capacity)
    assert all(client.received == WINDOW for client in stalled), "each got its window, and no more"
    for client in stalled:
        client.cancel(*STOP)
    assert world.run(lambda: traffic.settled)
    assert world.held() == 0
    check_over(world, traffic)


def test_a_stalled_reader_on_an_own_link_holds_its_window_and_no_more() -> None:
    world, traffic = joined(own_links=1, limits=LIMITS)
    client = traffic.open(Plan(down=1024 * KIB, long=True, piece=PIECE, reading=-1))
    world.run(seconds=5)
    assert client.received == LIMITS.own_credit
    assert world.held() <= LIMITS.send_queue + PIECE
    client.cancel(*STOP)
    assert world.run(lambda: traffic.settled)
    world.run(seconds=1)
    check_over(world, traffic)


@pytest.mark.parametrize("links", [0, 2])
def test_an_answer_in_mid_upload_ends_it(links: int) -> None:
    world, traffic = joined(own_links=links)
    client = traffic.open(Plan(up=3000 * KIB, down=100, early=True, closing=0.1))
    assert world.run(lambda: traffic.settled)
    assert [head.status for head in client.heads] == [413]
    assert client.whole
    assert client.early
    assert client.sent < 3000 * KIB
    world.run(seconds=1)
    check_over(world, traffic)


@pytest.mark.parametrize("links", [0, 1])
def test_a_refused_upgrade_gets_its_answer_and_nothing_of_what_was_pipelined(links: int) -> None:
    world, traffic = joined(own_links=links)
    client = traffic.open(Plan(upgrade=True, refused=True, up=500, down=120 * KIB, think=0.01))
    assert world.run(lambda: traffic.settled)
    assert client.whole
    assert traffic.servers[0].received == 0
    assert client.error is None
    world.run(seconds=1)
    check_over(world, traffic)


def test_ten_thousand_cancels_leave_nothing() -> None:
    world, traffic = joined(own_links=3, limits=LIMITS, seed=3)
    rng = world.rng
    total, batch = 10_000, 500
    for _ in range(total // batch):
        for _ in range(batch):
            plan = Plan(
                up=rng.choice((0, 0, 0, 4000)),
                down=rng.choice((100, 10_000)),
                long=rng.random() < 0.02,
                upgrade=rng.random() < 0.05,
                piece=PIECE,
                think=rng.uniform(0, 0.03),
                closing=rng.choice((0.0, 0.1, 1.0)),
            )
            if rng.random() < 0.5:
                plan.cancel_client = rng.uniform(0, 0.03)
            else:
                plan.cancel_server = rng.uniform(0, 0.03)
            traffic.open(plan)
        world.run(seconds=0.2)
        assert not world.violations, world.violations[:3]
        assert not world.errors, world.errors
    assert world.run(lambda: traffic.settled, seconds=30)
    world.run(seconds=2)
    assert len(traffic.clients) == total
    assert sum(client.cancelled or client.error is not None for client in traffic.clients) > total // 4
    check_over(world, traffic)
    assert world.held() == 0
    assert not world.stub._unacknowledged
    assert not world.agent.waiting
