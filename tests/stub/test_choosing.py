"""Of two agents at random the less busy one: what that comes to, and who is left out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stub.choosing import choose, two_of
from stub.errors import AgentSilent, Draining, NoAgent, SessionOverloaded
from stub.session import Health, Session


@dataclass
class Mux:
    suspect: bool = False
    stale: bool = False
    full: bool = False


@dataclass
class One:
    """As much of a session as a choice looks at."""

    load: int = 0
    available: bool = True
    leaving: bool = False
    health: Health = field(default_factory=Health)
    mux: Mux = field(default_factory=Mux)


UNIFORM = random.Random(1).random


def chosen(ones: list[One]) -> One:
    return cast(One, choose("alpha", cast(list[Session], ones), UNIFORM))


@given(st.integers(2, 20), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_two_are_never_the_same_and_any_pair_can_be(number: int, one: float, other: float) -> None:
    sessions = cast(list[Session], list(range(number)))
    first, second = two_of(sessions, cast(Any, iter((one, other)).__next__))
    assert first != second


def test_all_pairs_are_taken() -> None:
    uniform = random.Random(1).random
    sessions = cast(list[Session], list(range(4)))
    assert len({two_of(sessions, uniform) for _ in range(1000)}) == 12


@pytest.mark.parametrize("loads", [(0, 3), (3, 0), (7, 8)])
def test_of_two_the_less_busy_one_is_taken_every_time(loads: tuple[int, int]) -> None:
    ones = [One(load) for load in loads]
    assert {chosen(ones).load for _ in range(50)} == {min(loads)}


@pytest.mark.parametrize("agents", [2, 3, 8])
def test_even_load_spreads_within_a_fifth(agents: int) -> None:
    """32 at a time, each as long as any other: the oldest ends when a new one begins."""
    ones, served = [One() for _ in range(agents)], dict.fromkeys(range(agents), 0)
    under_way: list[One] = []
    for _ in range(3_000):
        if len(under_way) == 32:
            under_way.pop(0).load -= 1
        one = chosen(ones)
        one.load += 1
        under_way.append(one)
        served[next(number for number, each in zip(count(), ones, strict=False) if each is one)] += 1
    assert all(abs(number - 3_000 / agents) < 0.2 * 3_000 / agents for number in served.values())


def test_one_that_is_slow_gets_less() -> None:
    slow, ones = One(), [One(), One()]
    for _ in range(300):
        one = chosen([slow, *ones])
        one.load += 1
        if one is not slow:
            one.load -= 1
    assert slow.load <= 3


def test_one_that_is_not_ready_is_taken_only_where_no_other_is_there() -> None:
    bad, good, gone = One(), One(5), One(available=False)
    bad.health = Health(ready=False)
    assert all(chosen([bad, good, gone]) is good for _ in range(50))
    assert all(chosen([bad, gone]) is bad for _ in range(50))


@pytest.mark.parametrize(
    ("ones", "error"),
    [
        ([], NoAgent),
        ([One(available=False)], NoAgent),
        ([One(available=False, mux=Mux(full=True)), One(available=False, mux=Mux(suspect=True))], SessionOverloaded),
        ([One(available=False, mux=Mux(suspect=True)), One(available=False, leaving=True)], AgentSilent),
        ([One(available=False, leaving=True), One(available=False)], Draining),
        ([One(available=False, mux=Mux(stale=True))], Draining),
    ],
    ids=["none", "stops", "full", "suspect", "handed over", "stale"],
)
def test_where_there_is_none_it_says_why(ones: list[One], error: type[Exception]) -> None:
    with pytest.raises(error):
        chosen(ones)
