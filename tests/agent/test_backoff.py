"""The delays between attempts to attach."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backoff import BackOff


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=12, max_size=12))
def test_delays_grow_stay_bounded_and_are_never_nothing(numbers: list[float]) -> None:
    rest = iter(numbers)
    backoff = BackOff(lambda: next(rest), first=0.5, most=30.0, patience=0.0)
    for step in range(12):
        bound = min(0.5 * 2**step, 30.0)
        assert bound / 2 <= backoff.next() <= bound


@pytest.mark.parametrize("number", [0.0, 0.5, 0.999])
def test_for_the_first_minute_nobody_waits_for_more_than_five_seconds(number: float) -> None:
    backoff = BackOff(lambda: number, factor=1.5)
    waited, delays = 0.0, []
    while waited < 120.0:
        delays.append(backoff.next())
        waited += delays[-1]
    within = [delay for delay, before in zip(delays, accumulated(delays), strict=True) if before < 60.0]
    assert max(within) <= 5.0
    assert 5.0 < max(delays) <= 30.0
    backoff.reset()
    assert backoff.next() <= 0.5
    assert backoff.next() <= 0.75


def accumulated(delays: list[float]) -> list[float]:
    """What was waited before each."""
    return [0.0, *itertools.accumulate(delays)][: len(delays)]


def test_it_begins_anew_after_a_stable_session() -> None:
    backoff = BackOff(lambda: 0.0)
    first = backoff.next()
    assert backoff.next() > first
    backoff.reset()
    assert backoff.next() == first


@given(st.floats(0, 1, exclude_max=True))
def test_those_who_lost_one_server_come_back_anywhere_within_a_second(number: float) -> None:
    assert BackOff(lambda: number).scatter() == number
