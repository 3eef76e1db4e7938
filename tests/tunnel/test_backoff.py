"""The delays between tries: how they grow, what bounds them, and that chance never takes them beyond."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.backoff import BackOff

TRIES = 14
chances = st.lists(st.floats(0, 1, exclude_max=True), min_size=TRIES, max_size=TRIES)
seconds = st.floats(0.01, 300.0)
factors = st.floats(1.0, 4.0)


def drawn(numbers: Iterable[float]) -> Callable[[], float]:
    rest = iter(numbers)
    return lambda: next(rest)


@given(chances, seconds, seconds, factors)
def test_each_delay_is_between_a_half_and_the_whole_of_a_bound_that_grows_to_the_most(
    numbers: list[float], first: float, most: float, factor: float
) -> None:
    backoff, bound = BackOff(drawn(numbers), first, most, factor), min(first, most)
    for number in numbers:
        delay = backoff.next()
        assert bound / 2 <= delay <= bound <= most
        assert delay == pytest.approx(bound / 2 + number * bound / 2)
        bound = min(bound * factor, most)


@given(chances, seconds, seconds, seconds, st.floats(0.0, 120.0), factors)
def test_nobody_waits_longer_than_soon_before_his_patience_is_over_nor_than_the_most_at_all(
    numbers: list[float], first: float, most: float, soon: float, patience: float, factor: float
) -> None:
    backoff, waited = BackOff(drawn(numbers), first, most, factor, soon=soon, patience=patience), 0.0
    for _ in numbers:
        before, delay = waited, backoff.next()
        waited += delay
        assert min(first, soon, most) / 2 <= delay <= most
        if before < patience:
            assert delay <= max(min(first, most), soon)


@given(chances, seconds, seconds, factors, st.integers(0, TRIES))
def test_it_begins_anew_when_a_try_went_well(
    numbers: list[float], first: float, most: float, factor: float, failed: int
) -> None:
    new = BackOff(drawn(numbers), first, most, factor, soon=5.0)
    old = BackOff(drawn(numbers[:failed] + numbers), first, most, factor, soon=5.0)
    for _ in range(failed):
        old.next()
    assert old.failures == failed
    old.reset()
    assert [old.next() for _ in numbers] == [new.next() for _ in numbers]
    assert old.failures == TRIES


@pytest.mark.parametrize("number", [0.0, 0.5, 0.999])
def test_it_does_reach_the_most_once_patience_is_over(number: float) -> None:
    backoff = BackOff(lambda: number, 0.5, 30.0, 1.5, soon=5.0, patience=60.0)
    delays = [backoff.next() for _ in range(60)]
    before = [0.0, *itertools.accumulate(delays)]
    within = [delay for delay, waited in zip(delays, before, strict=False) if waited < 60.0]
    assert max(within) == pytest.approx(5.0 * (0.5 + 0.5 * number))
    assert delays[-1] == pytest.approx(30.0 * (0.5 + 0.5 * number))


@given(st.floats(0, 1, exclude_max=True), seconds)
def test_those_who_lost_one_server_come_back_anywhere_within_the_spread(number: float, spread: float) -> None:
    assert BackOff(lambda: number, 0.5, 30.0, spread=spread).scatter() == spread * number
