"""What spreads questions to the hub."""

from __future__ import annotations

from gateway.hub.timing import jitter


def test_jitter_differs_from_one_to_the_next() -> None:
    one, other = jitter(), jitter()
    assert 0.0 <= one() < 1.0
    assert [one() for _ in range(4)] != [other() for _ in range(4)]
