"""Anything at any time over two sessions: it ends as it would over one, and nothing is left at any of four ends."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import pytest

from tests.stub.peers.hops import Hops, hopping
from tests.support.joined import World
from tests.support.joined_invariants import check_always, check_over
from tests.support.joined_traffic import Plan, Traffic, joined
from tests.tunnel.test_sim_mixture import SMALL, kill_one, some_plan
from tunnel.errors import Hop, Reason
from tunnel.limits import KIB

SEEDS = (*range(12), 100, 103)


def mixed(seed: int, exchanges: int, **options: Any) -> Hops:
    """Two worlds in which all of that is going to happen."""
    rng = Random(seed)
    capacity = rng.choice((2, 16)) * KIB
    traffic = hopping(seed=seed, own_links=rng.randint(0, 4), limits=SMALL, capacity=capacity, **options)
    traffic.world.by_frame = rng.random() < 0.3
    for _ in range(exchanges):
        traffic.world.at(rng.uniform(0, 0.3), partial(open_one, traffic, some_plan(rng)))
    for world in (traffic.world, traffic.second):
        world.shared.slow(rng.choice((1, 1, 8)))
        for _ in range(rng.choice((0, 0, 2))):
            world.at(rng.uniform(0, 0.4), partial(kill_one, world, rng))
    return traffic


def open_one(traffic: Traffic, plan: Plan) -> None:
    """A client comes, if there still is a session."""
    if traffic.world.stub.closed_reason is None:
        traffic.open(plan)


def check_both(traffic: Hops) -> None:
    """See `check_always`."""
    check_always(traffic.world)
    check_always(traffic.second)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_mixtures(seed: int) -> None:
    traffic = mixed(seed, 40)
    world, steps = traffic.world, 0
    assert world.run(lambda: len(traffic.plans) == 40)
    while not traffic.settled and world.now < 60 and world.step():
        steps += 1
        if not steps % 16:
            check_both(traffic)
    assert traffic.settled, "it hangs"
    world.run(seconds=3)
    check_both(traffic)
    check_over(world, traffic)
    check_over(traffic.second, traffic)


def outcome(traffic: Traffic) -> list[tuple[Any, ...]]:
    """What every client has seen, and every server."""
    seen: list[tuple[Any, ...]] = []
    for client in traffic.clients:
        heads = [(head.status, head.headers, head.interim, head.upgrade) for head in client.heads]
        server = traffic.servers[client.key]
        error = (client.error.hop, client.error.reason, client.error.message) if client.error else None
        seen.append((heads, client.received, client.whole, error, server.received, server.got_end))
    return seen


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_user_sees_is_what_it_would_see_without_the_hop(seed: int) -> None:
    """Nobody cancels at a random time here, and nothing dies: so there is exactly one outcome."""

    def plans() -> list[Plan]:
        rng = Random(seed)
        found = [some_plan(rng) for _ in range(30)]
        for plan in found:
            plan.cancel_client, plan.early = -1.0, False
            plan.cancel_server = 0.001 if plan.cancel_server >= 0 and not plan.up else -1.0
            plan.think = 60.0 if plan.up or plan.cancel_server >= 0 else plan.think
            if (
                plan.cancel_server >= 0
            ):  # a RESET in the middle of a MOVE may be told as a lost link, also without a hop
                plan.long = plan.upgrade = plan.refused = False
        return found

    direct_world, direct = joined(seed=seed, limits=SMALL)
    through = hopping(seed=seed, limits=SMALL)
    for world, traffic in ((direct_world, direct), (through.world, through)):
        for plan in plans():
            traffic.open(plan)
        assert world.run(lambda traffic=traffic: traffic.settled)  # type: ignore[misc]  # bound for this turn
    assert outcome(through) == outcome(direct)


@pytest.mark.parametrize("which", ["between replicas", "to the agent"])
@pytest.mark.parametrize("seed", SEEDS[:6])
def test_a_session_is_lost_in_the_middle_of_it(seed: int, which: str) -> None:
    traffic = mixed(seed, 40)
    world = traffic.world
    lost: World = world if which == "between replicas" else traffic.second
    world.run(seconds=0.05 + 0.2 * world.rng.random())
    lost.shared.kill(world.rng.choice((0.0, 0.1)), world.rng.choice((0.0, 0.1)))
    world.run(seconds=60)
    assert all(client.clean for client in traffic.clients)
    assert not world.violations
    assert not world.bugs
    assert not traffic.second.bugs
    for mux in traffic.muxes:
        assert not mux.exchanges


def test_an_exchange_of_a_lost_replica_says_so() -> None:
    traffic = hopping()
    client = traffic.open(Plan(think=5.0))
    traffic.world.run(seconds=0.5)
    traffic.world.shared.kill()
    traffic.world.run(seconds=1)
    assert client.error is not None
    assert (client.error.hop, client.error.reason) == (Hop.STUB, Reason.LINK_LOST)
    server = traffic.servers[0]
    assert server.error is not None  # the agent stops at once
    assert not traffic.second.stub.exchanges


def test_a_user_who_leaves_ends_the_agents_exchange_promptly() -> None:
    traffic = hopping(delay=0.001)
    client = traffic.open(Plan(think=5.0))
    traffic.world.run(seconds=0.5)
    client.cancel(Hop.CLIENT, Reason.CANCELLED)
    traffic.world.run(seconds=0.01)
    error = traffic.servers[0].error
    assert error is not None
    assert (error.hop, error.reason) == (Hop.CLIENT, Reason.CANCELLED)
    assert traffic.settled


def test_an_answer_that_comes_early_leaves_nothing_of_its_request_behind() -> None:
    """The holder has the rest of a request whose API server reads no more: nobody would ever take it."""
    traffic = hopping(limits=SMALL, own_links=0)
    client = traffic.open(Plan(up=30_000, down=10, early=True))
    traffic.world.run(lambda: traffic.settled, seconds=5)
    assert client.whole
    assert traffic.settled


def test_an_api_server_that_breaks_off_is_told_in_its_own_name() -> None:
    traffic = hopping()
    client = traffic.open(Plan(down=1_000_000, reading=-1.0, cancel_server=0.5))
    traffic.world.run(lambda: traffic.settled)
    assert client.error is not None
    assert (client.error.hop, client.error.reason) == (Hop.APISERVER, Reason.BAD_RESPONSE)
    assert client.error.message == "the test does not want it any more"


@pytest.mark.parametrize("upgrade", [False, True])
def test_a_reader_that_stalls_holds_nobody_else_up_and_no_more_than_its_credit(upgrade: bool) -> None:
    traffic = hopping()
    world = traffic.world
    limits = world.limits
    stalled = traffic.open(Plan(down=100 * limits.own_credit_max, reading=-1.0, long=True, upgrade=upgrade))
    world.run(seconds=20)
    assert stalled.received < limits.own_credit_max + limits.own_credit
    bound = 2 * limits.own_credit + 4 * limits.send_queue + 8 * world.capacity
    assert world.held() + traffic.second.held() < bound
    quick = traffic.open(Plan(down=3000))
    world.run(seconds=0.1)
    assert quick.whole
