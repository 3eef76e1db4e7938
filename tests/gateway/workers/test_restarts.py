"""When a worker is begun again."""

from __future__ import annotations

from gateway.workers.restarts import FIRST, MOST, STABLE, Restarts


def test_one_that_ends_again_and_again_is_begun_later_and_later_up_to_a_bound() -> None:
    restarts = Restarts()
    pauses = [restarts.ended(now) for now in range(20)]
    assert pauses[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert pauses[-1] == MOST
    assert pauses == sorted(pauses)


def test_a_long_life_makes_the_next_end_the_first() -> None:
    restarts = Restarts()
    for now in range(5):
        restarts.ended(now)
    restarts.ready(100.0)
    assert restarts.ended(100.0 + STABLE) == FIRST


def test_a_short_life_or_a_long_start_does_not() -> None:
    restarts = Restarts()
    restarts.ended(0.0)
    restarts.ready(50.0)
    assert restarts.ended(50.0 + STABLE / 2) == 2 * FIRST
    assert restarts.ended(1_000.0) == 4 * FIRST, "it never served"
