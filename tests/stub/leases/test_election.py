"""One Lease and those who want it: told as what each saw, and when."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from stub.leases.election import Election, Look, Step, Wait, Write
from stub.leases.lease import Lease
from stub.leases.settings import Timing

TIMES = Timing(15, 10, 2)
WALL = 1_700_000_000.0


def candidate(identity: str = "a", *, contested: bool = True) -> Election:
    return Election("kulvert", identity, TIMES, lambda: 0.5, contested=contested)


def written(step: Step) -> Lease:
    assert isinstance(step, Write), step
    return step.lease


def held(by: str = "b", version: str = "7", **other: object) -> Lease:
    given = {"holder": by, "epoch": 5, "transitions": 3, "version": version} | other
    return Lease("kulvert", **given)  # type: ignore[arg-type]  # a test's shorthand


def holding(now: float = 100.0) -> Election:
    one = candidate()
    one.observe(None, now, untouched=True)
    one.renewed(replace(written(one.decide(now + 1, WALL)), version="1"), now)
    return one


def test_nothing_is_done_before_something_was_seen() -> None:
    assert candidate().decide(0, WALL) == Wait(math.inf)


def test_where_nobody_ever_was_it_is_made_at_once() -> None:
    one = candidate()
    one.observe(None, 100, untouched=True)
    lease = written(one.decide(100.2, WALL))
    assert (lease.holder, lease.duration, lease.transitions, lease.version) == ("a", 15, 0, "")
    assert (lease.acquired, lease.renewed, lease.epoch) == (WALL, WALL, int(WALL * 1000))


def test_another_waits_for_the_duration_from_when_it_saw_the_last_change() -> None:
    one = candidate()
    for second in range(0, 21, 2):
        one.observe(held(version="7" if second < 6 else "8", renewed=1.0), second)
    assert one.decide(20.9, WALL) == Wait(21)
    lease = written(one.decide(21, WALL))
    assert (lease.holder, lease.transitions, lease.version) == ("a", 4, "8")


def test_a_renewal_by_a_wall_clock_that_stands_still_is_seen() -> None:
    one = candidate()
    for second in range(0, 40, 2):
        one.observe(held(version=str(second), renewed=1.0), second)
        assert isinstance(one.decide(second, WALL), Wait)


def test_the_duration_is_the_records_own() -> None:
    one = candidate()
    for second in range(0, 30, 5):
        one.observe(held(duration=30), second)
    assert one.decide(29, WALL) == Wait(30)


def test_a_released_one_is_taken_at_once_though_not_by_all_in_one_moment() -> None:
    one = candidate()
    one.observe(held(by="", duration=1), 100)
    assert one.decide(100, WALL) == Wait(100.1)
    assert written(one.decide(100.1, WALL)).transitions == 4


def test_the_epoch_is_above_the_last_one_whatever_the_wall_clock_says() -> None:
    one = candidate()
    one.observe(held(by="", epoch=2**60), 100)
    assert written(one.decide(101, WALL)).epoch == 2**60 + 1
    one.known(2**61)
    assert written(one.decide(101, -5.0)).epoch == 2**61 + 1


def test_a_holder_stops_at_its_deadline_counted_from_the_start_of_the_renewal() -> None:
    one = holding(100.0)
    assert one.holds(109.99)
    assert not one.holds(110)
    assert one.decide(101, WALL) == Wait(102)
    lease = written(one.decide(102, WALL + 2))
    assert (lease.renewed, lease.acquired, lease.version) == (WALL + 2, WALL, "1")
    one.renewed(replace(lease, version="2"), 102)
    assert one.holds(111.9)
    assert not one.holds(112)


def test_a_holder_that_cannot_renew_tries_again_within_its_deadline() -> None:
    one = holding(100.0)
    now, tries = 102.0, 0
    while one.holds(now):
        written(one.decide(now, WALL))
        one.failed(now, now + TIMES.patience)
        now, tries = max(now + TIMES.patience, 0), tries + 1
    assert tries >= 2


def test_after_its_deadline_it_goes_on_in_the_same_holding_if_nobody_else_came() -> None:
    one = holding(100.0)
    epoch = one.epoch
    one.failed(102, 106)
    assert not one.holds(130)
    one.renewed(replace(written(one.decide(130, WALL)), version="2"), 130)
    assert one.holds(131)
    assert (one.epoch, one.transitions) == (epoch, 1)


def test_a_renewal_that_took_effect_without_an_answer_is_found_again() -> None:
    one = holding(100.0)
    sent = written(one.decide(102, WALL))
    one.failed(102, 106)
    written(one.decide(106, WALL))
    one.conflicted(106)
    assert one.decide(106, WALL) == Look()
    one.looked(replace(sent, version="2"), 106)
    assert one.holds(106)
    assert written(one.decide(106, WALL)).version == "2"


def test_who_finds_another_there_holds_no_longer() -> None:
    one = holding(100.0)
    one.conflicted(102)
    one.looked(held(by="b"), 103)
    assert not one.holds(103)
    assert one.holder(103) == ("b", 5)
    assert one.decide(103, WALL) == Wait(118)


@pytest.mark.parametrize("contested", [True, False])
def test_a_former_process_of_the_same_name_is_no_holding(contested: bool) -> None:
    """It is taken at once, and anew: another epoch, and nothing before the write was answered."""
    one = candidate(contested=contested)
    one.observe(held(by="a"), 100)
    assert not one.holds(100)
    assert one.holder(100) == ("", 5)
    lease = written(one.decide(100, 0.0))
    assert (lease.epoch, lease.transitions, lease.version) == (6, 3, "7")


def test_a_later_process_of_the_same_name_ends_the_holding() -> None:
    one = holding(100.0)
    one.conflicted(102)
    one.looked(held(by="a", epoch=one.epoch + 1), 102)
    assert not one.holds(102)


def test_one_that_vanished_counts_as_long_again_for_others() -> None:
    one = candidate()
    one.observe(held(), 100)
    for second in range(102, 117, 2):
        one.observe(None, second)
    assert one.decide(116.9, WALL) == Wait(117)
    lease = written(one.decide(117, 0.0))
    assert (lease.version, lease.epoch) == ("", 6)


def test_its_holder_makes_one_that_vanished_anew_at_once_with_a_higher_epoch() -> None:
    one = holding(100.0)
    before = one.epoch
    one.conflicted(102)
    one.looked(None, 102)
    assert not one.holds(102)
    lease = written(one.decide(102.2, 0.0))
    assert (lease.version, lease.epoch) == ("", before + 1)


def test_a_holder_past_its_deadline_waits_like_all_others_for_one_that_vanished() -> None:
    one = holding(100.0)
    one.conflicted(111)
    one.looked(None, 111)
    assert one.decide(112, WALL) == Wait(126)


def test_a_hub_that_was_away_was_away_for_the_holder_too() -> None:
    one = candidate()
    one.observe(held(), 100)
    one.observe(held(), 102)
    assert one.decide(116, WALL) == Wait(math.inf), "blind"
    one.observe(held(), 160)
    assert one.decide(160, WALL) == Wait(175)


def test_releasing_is_as_client_go_does_it_and_final() -> None:
    one = holding(100.0)
    lease = one.resign(WALL + 9)
    assert lease is not None
    assert (lease.holder, lease.duration, lease.renewed, lease.epoch) == ("", 1, WALL + 9, int(WALL * 1000))
    assert not one.holds(100)
    one.renewed(replace(lease, holder="a", version="2"), 101)  # a renewal was under way
    assert not one.holds(101)
    assert one.decide(200, WALL) == Wait(math.inf)


def test_what_is_released_is_only_the_own_holding() -> None:
    one = holding(100.0)
    last = one.resign(WALL)
    assert last is not None
    mine = replace(last, holder="a", version="9")
    again = one.released(mine, WALL)
    assert again is not None
    assert (again.holder, again.version) == ("", "9")
    assert one.released(replace(mine, epoch=mine.epoch + 1), WALL) is None
    assert one.released(held(by="b"), WALL) is None


def test_an_own_lease_is_taken_whatever_it_says() -> None:
    one = candidate(contested=False)
    one.observe(held(by=""), 100)
    assert written(one.decide(100, WALL)).holder == "a"
    one.observe(held(by="b", version="8"), 101)
    assert written(one.decide(101, WALL)).version == "8"


def test_notes_are_written_with_the_next_renewal() -> None:
    one = holding(100.0)
    one.notes = {"leaving": "true"}
    one.hurry(100.5)
    assert written(one.decide(100.5, WALL)).notes == {"leaving": "true"}


def test_what_a_watch_shows_makes_the_duration_run_anew_and_nothing_shorter() -> None:
    one = candidate()
    one.glimpse(held(version="6"), 99)
    assert one.decide(99, WALL) == Wait(math.inf), "nothing before the first look"
    one.observe(held(), 100)
    one.glimpse(held(), 101)
    assert one.decide(102, WALL) == Wait(115)
    one.glimpse(held(version="8"), 103)
    assert one.decide(104, WALL) == Wait(118)
    own = holding(100.0)
    own.glimpse(held(), 101)
    assert own.holds(101)
