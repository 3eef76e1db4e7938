"""How long what reads the hub waits: for answers, and before it asks again (`tunnel.backoff`)."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InformerTiming:
    """Seconds. A watch is asked for `watch` of them, and given up `slack` later: where everything is dropped without a
    word, nothing else tells that the hub has fallen silent, and a grant that was taken away ends its streams in 30.
    """

    watch: float = 15.0
    slack: float = 3.0
    answer: float = 5.0
    """Until the head of an answer to a watch, which a hub sends at once."""
    page: float = 30.0
    """For one page of a list."""
    whole_list: float = 300.0
    least: float = 0.5
    """The first pause after a failure; the least between two watches."""
    most: float = 30.0
    """The longest pause that grows out of failures."""
    longest: float = 120.0
    """The longest pause that the hub may ask for (Retry-After)."""
    check: float = 600.0
    """Between two comparisons with the hub, more or less a quarter."""


def jitter() -> Callable[[], float]:
    """A source of numbers between 0 and 1 that spread retries; nobody gains by guessing them."""
    return random.Random(os.urandom(8)).random  # noqa: S311
