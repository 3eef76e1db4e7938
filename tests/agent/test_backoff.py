"""The delays between attempts to attach."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.backoff import BackOff


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=12, max_size=12))
def test_delays_grow_stay_bounded_and_are_never_nothing(numbers: list[float]) -> None:
    rest = iter(numbers)
    backoff = BackOff(lambda: next(rest), first=0.5, most=30.0)
    for step in range(12):
        bound = min(0.5 * 2**step, 30.0)
        assert bound / 2 <= backoff.next() <= bound


def test_it_begins_anew_after_a_stable_session() -> None:
    backoff = BackOff(lambda: 0.0)
    first = backoff.next()
    assert backoff.next() > first
    backoff.reset()
    assert backoff.next() == first


@given(st.floats(0, 1, exclude_max=True))
def test_those_who_lost_one_server_come_back_anywhere_within_a_second(number: float) -> None:
    assert BackOff(lambda: number).scatter() == number
