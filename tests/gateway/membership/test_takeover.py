"""A name is free once nobody of its cluster has been there for the grace period, and not a moment earlier."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.membership.takeover import seconds_until_free

TIMES = st.floats(0, 1e10)
GRACES = st.floats(0.001, 1e6)


@given(TIMES, TIMES, GRACES)
def test_it_is_free_exactly_when_the_grace_period_has_passed(last: float, now: float, grace: float) -> None:
    left = seconds_until_free(last, now, grace)
    assert 0 <= left <= grace
    assert (left == 0) == (now - last >= grace)


@given(TIMES, GRACES)
def test_who_is_connected_or_was_seen_in_a_clocks_future_keeps_the_name(now: float, grace: float) -> None:
    assert seconds_until_free(now, now, grace) == grace
    assert seconds_until_free(now + 5.0, now, grace) == grace
    assert seconds_until_free(math.nan, now, grace) == grace


@given(TIMES, GRACES, st.lists(st.floats(0, 0.99), max_size=20))
def test_a_blip_hands_nothing_over(began: float, grace: float, gaps: list[float]) -> None:
    """However often they go and come, with gaps shorter than the grace period."""
    now = began
    for gap in gaps:
        left = now
        now += gap * grace
        assert seconds_until_free(left, now, grace) > 0 or now - left >= grace
