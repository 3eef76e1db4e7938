"""What to do about a credential: an hour and a day of simulated time, with an issuer that may be down, slow to rotate,
or mad. Never is an expired one handed out, and never is the issuer asked again and again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.credentialplan import LONGEST_PAUSE, Step, Times, decide, failed, obtained

START = 1_700_000_000.0
HOUR, DAY = 3_600.0, 86_400.0


@dataclass
class World:
    """A user's program that needs a credential at some moments, and an issuer with failures of its own."""

    lifetime: float
    share: float
    down: list[tuple[float, float]]
    now: float = START
    times: Times | None = None
    renewals: list[float] = field(default_factory=list)
    used: int = 0
    waited: int = 0

    def call(self) -> None:
        step = decide(self.times, self.now, renewable=True, interactive=False)
        if step is Step.RENEW:
            self.renew()
            step = decide(self.times, self.now, renewable=True, interactive=False)
        if step is Step.USE:
            assert self.times is not None
            assert self.now < self.times.expires, "an expired credential was handed out"
            until = self.times.until(self.now, True)
            assert self.now < until < self.times.expires, "kubectl would use it too long, or ask without end"
            self.used += 1
        else:
            assert step is Step.WAIT
            self.waited += 1

    def renew(self) -> None:
        self.renewals.append(self.now)
        if any(begin <= self.now - START < end for begin, end in self.down):
            self.times = failed(self.times or Times(self.now, self.now), self.now)
        else:
            self.times = obtained(self.now, self.now + self.lifetime, self.share)


def outages(span: float) -> st.SearchStrategy[list[tuple[float, float]]]:
    moment = st.floats(0, span)
    return st.lists(st.tuples(moment, st.floats(0, span / 8)).map(lambda one: (one[0], one[0] + one[1])), max_size=4)


def run(world: World, span: float, pauses: list[float]) -> None:
    index = 0
    while world.now - START < span:
        world.call()
        world.now += pauses[index % len(pauses)]
        index += 1


@given(
    span=st.sampled_from([HOUR, DAY]),
    lifetime=st.floats(20, 7_200),
    share=st.sampled_from([0.0, 2 / 3]),
    down=outages(HOUR),
    pauses=st.lists(st.floats(0.05, 900), min_size=1, max_size=8).filter(lambda all_: sum(all_) / len(all_) > 30),
)
def test_never_expired_and_never_a_storm(
    span: float, lifetime: float, share: float, down: list[tuple[float, float]], pauses: list[float]
) -> None:
    world = World(lifetime, share, down)
    run(world, span, pauses)
    gaps = [after - before for before, after in zip(world.renewals, world.renewals[1:], strict=False)]
    assert all(gap >= min(2.0, lifetime / 2) for gap in gaps)
    if not down:
        assert world.waited == 0
        assert len(world.renewals) <= span / (lifetime * 0.5) + 1


@given(lifetime=st.floats(0.0, 30.0), down=st.booleans())
def test_many_calls_a_second_are_few_renewals(lifetime: float, down: bool) -> None:
    world = World(lifetime, 0.0, [(0, DAY)] if down else [])
    for _ in range(600):
        step = decide(world.times, world.now, renewable=True, interactive=False)
        if step is Step.RENEW:
            world.renew()
        world.now += 0.1
    assert len(world.renewals) <= (8 if down else 60 / max(0.1, lifetime / 2) + 2)


def test_a_gateway_and_its_user_that_differ_by_seconds_see_no_expired_token() -> None:
    times = obtained(START, START + HOUR)
    assert decide(times, START + HOUR - 61, renewable=True, interactive=False) is Step.USE
    assert decide(times, START + HOUR - 59, renewable=True, interactive=False) is Step.RENEW
    assert START + HOUR - 60 < times.until(START, True) < START + HOUR - 30


@given(st.floats(60, 10 * DAY), st.sampled_from([0.0, 2 / 3]), st.floats(0, 1))
def test_what_is_handed_out_is_not_asked_for_again_at_once(life: float, share: float, at: float) -> None:
    """client-go closes all connections for another certificate, and the request that is under way with them."""
    times = obtained(START, START + life, share)
    now = START + at * (times.due - START) * 0.999
    assert decide(times, now, renewable=True, interactive=False) is Step.USE
    assert now + (times.last - times.due) / 2 <= times.until(now, True) < times.last


def test_a_certificate_is_renewed_at_two_thirds_of_its_life() -> None:
    times = obtained(START, START + DAY, 2 / 3)
    assert decide(times, START + 57_599, renewable=True, interactive=False) is Step.USE
    assert decide(times, START + 57_601, renewable=True, interactive=False) is Step.RENEW


def test_while_the_issuer_is_down_the_old_one_is_used_and_then_waited() -> None:
    times = failed(obtained(START, START + 300), START + 250)
    assert decide(times, START + 251, renewable=True, interactive=True) is Step.USE
    assert decide(times, START + 253, renewable=True, interactive=True) is Step.RENEW
    late = failed(times, START + 299)
    assert decide(late, START + 300, renewable=True, interactive=True) is Step.WAIT


@pytest.mark.parametrize(("interactive", "step"), [(True, Step.SIGN_IN), (False, Step.REFUSE)])
def test_without_a_silent_way_the_user_is_asked_or_told(interactive: bool, step: Step) -> None:
    assert decide(None, START, renewable=False, interactive=interactive) is step
    expired = obtained(START - HOUR, START - 1)
    assert decide(expired, START, renewable=False, interactive=interactive) is step
    assert decide(obtained(START - HOUR, START + 30), START, renewable=False, interactive=interactive) is Step.USE


def test_a_clock_that_was_set_back_makes_nothing_usable_and_forbids_nothing() -> None:
    times = failed(obtained(START + DAY, START + DAY + HOUR), START + DAY)
    assert decide(times, START, renewable=True, interactive=False) is Step.RENEW
    assert decide(times, START, renewable=False, interactive=False) is Step.REFUSE


def test_pauses_grow_and_end() -> None:
    times, pauses = Times(START, START), []
    for _ in range(30):
        times = failed(times, START)
        pauses.append(times.retry_at - START)
    assert pauses[:4] == [2.0, 4.0, 8.0, 16.0]
    assert max(pauses) == LONGEST_PAUSE
