"""Two cores, joined: the ways of an exchange from its opening to its end."""

from __future__ import annotations

import pytest

from tests.support.joined_invariants import check_over
from tests.support.joined_traffic import Plan, joined
from tunnel.limits import KIB

WAYS = {
    "a short GET": Plan(),
    "no body either way": Plan(down=0),
    "a body each way": Plan(up=40_000, down=50_000),
    "bodies beyond the credit": Plan(up=900_000, down=1_100_000),
    "a long answer": Plan(long=True, down=2_000_000),
    "a body of known length": Plan(down=500_000, length=True),
    "an upgrade": Plan(upgrade=True, up=300_000, down=400_000),
    "an upgrade, one way": Plan(upgrade=True, up=0, down=70_000),
    "interim answers": Plan(interims=3),
    "slow readers": Plan(up=300_000, down=300_000, reading=0.05, reading_up=0.05),
}


@pytest.mark.parametrize("links", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_every_byte_arrives_and_nothing_stays(way: str, links: int) -> None:
    world, traffic = joined(own_links=links)
    client = traffic.open(WAYS[way])
    assert world.run(lambda: traffic.settled), "it hangs"
    assert client.whole
    assert client.error is None
    world.run(seconds=1)
    check_over(world, traffic)


def test_a_long_answer_moves_to_an_own_link() -> None:
    world, traffic = joined(own_links=1)
    traffic.open(Plan(long=True, down=300 * KIB))
    assert world.run(lambda: bool(world.owns) and world.owns[0].stub.link.carried > 0)
    assert world.run(lambda: traffic.settled)
    world.run(seconds=1)
    check_over(world, traffic)
