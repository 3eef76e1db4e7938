"""Anything at any time: mixtures of exchanges, cancels, slow readers, slow closings and killed links, from a seed."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from tests.support.joined import World
from tests.support.joined_invariants import check_always, check_over
from tests.support.joined_traffic import Plan, Traffic, joined
from tunnel.errors import ExchangeReset
from tunnel.limits import KIB, LinkLimits

SMALL = LinkLimits(
    shared_credit=4 * KIB,
    own_credit=16 * KIB,
    own_credit_max=64 * KIB,
    send_queue=8 * KIB,
    data_slice=1 * KIB,
    transport_buffer=8 * KIB,
)
"""Windows so small that each exchange meets every border many times."""


def some_plan(rng: Random) -> Plan:
    """An exchange as it may come."""
    size = rng.choice((0, 1, 300, 3000, 5000, 20_000, 60_000))
    plan = Plan(
        up=rng.choice((0, 0, 0, 1, 2000, 30_000)),
        down=size,
        long=rng.random() < 0.3,
        upgrade=rng.random() < 0.2,
        piece=rng.choice((1, 100, 2000, 16 * KIB)) if size < 5000 else 3000,
        think=rng.choice((0.0, 0.0, 0.003, 0.02)),
        reading=rng.choice((0.0, 0.0, 0.01)),
        reading_up=rng.choice((0.0, 0.0, 0.01)),
        closing=rng.choice((0.0, 0.02, 0.2)),
        length=rng.random() < 0.3,
        interims=rng.choice((0, 0, 2)),
    )
    plan.refused = plan.upgrade and rng.random() < 0.3
    plan.early = not plan.upgrade and plan.up > 2000 and rng.random() < 0.3
    plan.cancel_client = rng.uniform(0, 0.05) if rng.random() < 0.2 else -1.0
    plan.cancel_server = rng.uniform(0, 0.05) if rng.random() < 0.1 else -1.0
    return plan


def mixed(seed: int, exchanges: int) -> tuple[World, Traffic]:
    """A world in which all of that is going to happen."""
    rng = Random(seed)
    world, traffic = joined(seed=seed, own_links=rng.randint(0, 4), limits=SMALL, capacity=rng.choice((2, 16)) * KIB)
    world.by_frame = rng.random() < 0.3
    for _ in range(exchanges):
        plan = some_plan(rng)
        world.at(rng.uniform(0, 0.3), partial(open_one, world, traffic, plan))
    world.shared.slow(rng.choice((1, 1, 8)))
    for _ in range(rng.choice((0, 0, 2, 4))):
        world.at(rng.uniform(0, 0.4), lambda: kill_one(world, rng))
    return world, traffic


def open_one(world: World, traffic: Traffic, plan: Plan) -> None:
    """A client comes, if there still is a session."""
    if world.stub.closed_reason is None:
        traffic.open(plan)


def kill_one(world: World, rng: Random) -> None:
    """An own link dies, and its ends notice when they do."""
    alive = [joint for joint in world.owns if joint.alive]
    if alive:
        rng.choice(alive).kill(rng.choice((0.0, 0.05)), rng.choice((0.0, 0.05)))


def run_mixture(seed: int, exchanges: int) -> None:
    world, traffic = mixed(seed, exchanges)
    steps = 0
    assert world.run(lambda: len(traffic.plans) == exchanges)
    while not traffic.settled and world.now < 60 and world.step():
        steps += 1
        if not steps % 16:
            check_always(world)
    assert traffic.settled, f"it hangs: {list(world.stub.exchanges)[:5]} {list(world.agent.exchanges)[:5]}"
    world.run(seconds=3)
    check_over(world, traffic)


def test_random_mixtures(seeds: range) -> None:
    for seed in range(10 * len(seeds)):
        try:
            run_mixture(seed, 40)
        except (AssertionError, Exception) as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_the_session_is_lost_in_the_middle_of_it(seeds: range) -> None:
    for seed in range(3 * len(seeds)):
        world, traffic = mixed(seed, 40)
        world.run(seconds=0.05 + 0.2 * world.rng.random())
        world.shared.kill(world.rng.choice((0.0, 0.1)), world.rng.choice((0.0, 0.1)))
        world.run(seconds=3)
        assert world.stub.closed_reason is not None, f"seed {seed}"
        assert world.agent.closed_reason is not None, f"seed {seed}"
        lost = [c for c in traffic.clients if not c.clean]
        assert not lost, f"seed {seed}: {len(lost)} clients were told nothing"
        assert not world.violations, f"seed {seed}: {world.violations}"
        assert not world.bugs, f"seed {seed}: {world.bugs}"
        assert not world.agent.waiting, f"seed {seed}"
        assert not world.stub.own_links, f"seed {seed}"
        assert not world.agent.own_links, f"seed {seed}"


@pytest.mark.parametrize("late", [False, True])
def test_nothing_is_opened_on_a_lost_session(late: bool) -> None:
    world, traffic = joined()
    world.shared.kill(agent_after=1.0 if late else 0.0)
    world.run(seconds=0.5)
    with pytest.raises(ExchangeReset):
        traffic.open(Plan())
