"""MOVE, with either link killed at every step of it (docs/protocol.md, 7): all bytes, or a clean RESET at both ends."""

from __future__ import annotations

import pytest

from tests.support.joined import Joint, World
from tests.support.joined_invariants import check_always, check_over
from tests.support.joined_traffic import Plan, Traffic, joined
from tunnel.limits import KIB

PLANS = {
    "both bodies": Plan(up=200 * KIB, down=200 * KIB, long=True),
    "an upgrade": Plan(up=90 * KIB, down=90 * KIB, upgrade=True, think=0.004),
    "short, and over before the move": Plan(down=2000, long=True),
}
NOTICES = {"at once": (0.0, 0.0), "the stub late": (1.0, 0.0), "the agent late": (0.0, 1.0)}
"""When each end notices that the connection is gone: (stub, agent)."""
MOST_STEPS = 400


def started(plan: Plan, seed: int) -> tuple[World, Traffic, Joint]:
    world, traffic = joined(seed=seed, own_links=1)
    world.by_frame = True
    joint = world.attach()
    traffic.open(plan)
    return world, traffic, joint


def moving(plan: Plan, seed: int) -> list[int]:
    """The steps from the opening until both sides have moved and what waited was handled, or the exchange is over."""
    world, traffic, joint = started(plan, seed)
    for step in range(MOST_STEPS):
        world.step()
        exchange = world.agent.exchanges.get(1)
        if traffic.settled or (exchange and exchange.peer_moved and joint.stub.link.carried > 64 * KIB):
            return list(range(step + 3))
    raise AssertionError("it never moved")


def survives(plan: Plan, seed: int, step: int, whom: str, notice: tuple[float, float]) -> None:
    world, traffic, joint = started(plan, seed)
    for _ in range(step):
        world.step()
    (joint if whom == "own" else world.shared).kill(*notice)
    hung = not world.run(lambda: traffic.settled, seconds=30)
    assert not hung, f"it hangs: {world.stub.exchanges} {world.agent.exchanges}"
    world.run(seconds=2)
    client, server = traffic.clients[0], traffic.servers.get(0)
    if whom == "own":
        assert world.shared.alive, "the session must outlive an own link"
        again = traffic.open(Plan(up=1000, down=1000))
        assert world.run(lambda: traffic.settled, seconds=30)
        assert again.whole, "the session is not usable"
    assert client.whole or client.error, "the client knows nothing"
    if client.error is not None and server is not None and not server.over:
        raise AssertionError("the server knows nothing")
    world.run(seconds=2)
    check_over(world, traffic)


@pytest.mark.parametrize("whom", ["own", "shared"])
@pytest.mark.parametrize("notice", NOTICES)
@pytest.mark.parametrize("plan", PLANS)
def test_a_link_killed_at_every_step_of_a_move(plan: str, notice: str, whom: str, seeds: range) -> None:
    for seed in seeds[:3]:
        for step in moving(PLANS[plan], seed):
            try:
                survives(PLANS[plan], seed, step, whom, NOTICES[notice])
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, killed after step {step}: {error}") from error


@pytest.mark.parametrize("plan", PLANS)
def test_without_a_kill_every_byte_arrives_however_the_links_are_reordered(plan: str, seeds: range) -> None:
    for seed in seeds:
        world, traffic, joint = started(PLANS[plan], seed)
        world.by_frame = False
        (world.shared, joint)[seed % 2].slow(5 + 10 * (seed % 3))
        while not traffic.settled and world.step():
            check_always(world)
        assert traffic.clients[0].whole, f"seed {seed}"
        world.run(seconds=1)
        check_over(world, traffic)


def test_an_own_link_is_used_again_and_replaced_when_worn() -> None:
    world, traffic = joined(own_links=1)
    for size in (100 * KIB, 100 * KIB, 1100 * KIB, 100 * KIB):
        traffic.open(Plan(down=size, long=True))
        assert world.run(lambda: traffic.settled)
        world.run(seconds=0.5)
    assert [joint.alive for joint in world.owns] == [False, True]
    check_over(world, traffic)
