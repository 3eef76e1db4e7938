"""Pauses between questions to the hub."""

from __future__ import annotations

from gateway.hub.backoff import Backoff, jitter


def test_pauses_double_up_to_the_longest_and_begin_again() -> None:
    backoff = Backoff(0.5, 3.0, lambda: 1.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.failures == 5
    backoff.reset()
    assert (backoff.next(), backoff.failures) == (0.5, 1)


def test_pauses_are_spread_over_their_second_half() -> None:
    numbers = iter([0.0, 0.5])
    backoff = Backoff(4.0, 4.0, lambda: next(numbers))
    assert [backoff.next(), backoff.next()] == [2.0, 3.0]


def test_jitter_differs_from_one_to_the_next() -> None:
    one, other = jitter(), jitter()
    assert 0.0 <= one() < 1.0
    assert [one() for _ in range(4)] != [other() for _ in range(4)]
