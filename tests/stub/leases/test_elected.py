"""Mode standby as several replicas live it, in made-up time. In each tick the world looks for two holders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from stub.leases.elected import Elected
from stub.leases.sharded import Sharded
from tests.stub.leases.world import SHARDED, STANDBY, Process, World, world

Two = World[Elected]


@pytest.fixture
def two() -> Iterator[Two]:
    """a and b; one of them holds."""
    with world(Elected, STANDBY) as within:
        within.start("a")
        within.start("b")
        within.run(5)
        yield within


def holder(within: Two) -> Process[Elected]:
    return within.processes[within.owner(within.clusters[0])]


def other(within: Two) -> Process[Elected]:
    return next(one for one in within.processes.values() if one is not holder(within))


def epoch(within: Two) -> int:
    return within.last[within.clusters[0]][1]


def test_the_first_holds_within_a_second() -> None:
    with world(Elected, STANDBY) as within:
        within.start("a")
        assert within.run(10, within.all_owned) < 1


def test_one_has_all_and_all_know_who(two: Two) -> None:
    held, waits = holder(two).owner, other(two).owner
    assert held.place("any").mine
    assert (held.leading, waits.leading) == (True, False)
    assert waits.place("any").replica == waits.leader() == held.leader() == holder(two).identity
    assert waits.place("any").epoch == held.place("any").epoch > 0
    assert {one.identity for one in waits.replicas()} == {"a", "b"}
    assert (held.problem, waits.problem) == (None, None), "a standby is ready"
    assert held.leading_since is not None
    assert waits.leading_since is None
    assert (held.transitions, waits.transitions) == (1, 0)
    assert held.renewal_latency is not None


def test_one_that_is_killed_is_followed_after_the_duration(two: Two) -> None:
    before = epoch(two)
    two.crash(holder(two).identity)
    assert 3 <= two.run(20, two.all_owned) <= 4 + 1 + 0.3
    assert epoch(two) > before
    assert two.records.leases["kulvert"].transitions == 1


def test_one_that_ends_in_order_is_followed_at_once(two: Two) -> None:
    before, leaving = epoch(two), holder(two)
    leaving.loop.call_soon(leaving.resign)
    two.tick()
    assert not leaving.owner.place("any").mine
    assert two.run(5, two.all_owned) <= 1.3
    assert epoch(two) > before
    assert f"kulvert-replica-{leaving.identity}" not in two.records.leases


def test_resigning_again_asks_the_hub_nothing(two: Two) -> None:
    one = holder(two)
    one.resign()
    two.run(2)
    for process in two.processes.values():
        process.life.cancel()
    two.run(1)
    before = dict(two.records.calls)
    one.resign()
    two.run(2)
    assert one.other is not None
    assert one.other.done()
    assert dict(two.records.calls) == before


def test_a_renewal_under_way_does_not_undo_the_release(two: Two) -> None:
    leaving = holder(two)
    leaving.store.before = 0.5
    two.run(3)
    leaving.loop.call_soon(leaving.resign)
    two.run(2.5)
    assert holder(two) is not leaving


def test_a_paused_holder_stops_by_its_own_clock_and_is_none_when_it_wakes(two: Two) -> None:
    paused = holder(two)
    paused.paused = True
    two.run(3.1)
    assert not paused.owner.place("any").mine
    assert not paused.owner.leading
    two.run(10)
    assert holder(two) is not paused
    paused.paused = False
    two.run(5)
    assert holder(two) is not paused
    assert paused.owner.leader() == holder(two).identity


def test_a_hub_that_is_away_leaves_the_holding_as_it_was(two: Two) -> None:
    held, before = holder(two), epoch(two)
    for one in two.processes.values():
        one.store.down = True
    two.run(2)
    assert holder(two) is held
    two.run(60)
    assert not two.all_owned()
    assert held.owner.leader() == ""
    assert "cut off" in str(held.owner.problem)
    for one in two.processes.values():
        one.store.down = False
    assert two.run(10, two.all_owned) <= 1.2
    assert (holder(two), epoch(two)) == (held, before)
    two.run(5)
    assert held.owner.problem is None


def test_one_that_is_cut_off_stops_before_the_other_begins(two: Two) -> None:
    cut = holder(two)
    cut.store.down = True
    two.run(3.1)
    assert not two.all_owned()
    assert two.run(5, two.all_owned) > 0
    assert holder(two) is not cut
    cut.store.down = False
    two.run(10)
    assert holder(two) is not cut


def test_answers_that_come_late_or_never_end_a_holding_in_time(two: Two) -> None:
    cut = holder(two)
    cut.store.losing = True
    two.run(3.1)
    assert not cut.owner.place("any").mine, "what it wrote it cannot know"
    cut.store.losing = False
    two.run(10)
    assert two.all_owned()


def test_one_that_starts_again_under_its_name_holds_anew(two: Two) -> None:
    again, before = holder(two).identity, epoch(two)
    two.crash(again)
    process = two.start(again)
    process.skew = -86_400
    assert not process.owner.place("any").mine
    assert two.run(5, two.all_owned) < 1
    assert (holder(two), epoch(two)) == (process, before + 1)


def test_a_lease_that_was_deleted_is_made_anew_by_its_holder(two: Two) -> None:
    held, before = holder(two), epoch(two)
    del two.records.leases["kulvert"]
    two.run(3)
    assert holder(two) is held
    assert epoch(two) > before


def test_a_lease_that_vanishes_while_its_holder_is_cut_off_is_not_taken_before_it_stops(two: Two) -> None:
    held = holder(two)
    held.store.down = True
    del two.records.leases["kulvert"]
    two.run(1.5)
    assert holder(two) is held
    two.run(8)
    assert holder(two) is not held


def test_wall_clocks_that_jump_or_stand_still_change_nothing(two: Two) -> None:
    held, before = holder(two), epoch(two)
    held.wall = lambda: 1_000_000.0  # type: ignore[method-assign]  # its clock stands still
    held.owner._leader._wall = held.wall
    other(two).skew += 1e6
    two.run(20)
    assert (holder(two), epoch(two)) == (held, before)


def test_those_who_listen_are_told_at_once_when_time_alone_ends_it(two: Two) -> None:
    held = holder(two)
    told: list[bool] = []
    held.owner.subscribe(lambda: told.append(held.owner.place("any").mine))
    held.store.down = True
    two.run(5, lambda: not held.owner.place("any").mine)
    two.run(0.1)
    assert told[-1] is False


def test_leases_of_replicas_that_are_gone_are_deleted_by_the_leader(two: Two) -> None:
    gone = other(two).identity
    two.crash(gone)
    two.run(15)
    assert f"kulvert-replica-{gone}" in two.records.leases
    assert {one.identity for one in holder(two).owner.replicas()} == {holder(two).identity}
    two.run(15)
    assert f"kulvert-replica-{gone}" not in two.records.leases


def test_what_cannot_be_is_refused_at_the_start(two: Two) -> None:
    one = holder(two)
    with pytest.raises(ValueError, match="longer than its renew deadline"):
        Elected(one.me, replace(STANDBY, duration=3.0), one.store)


@pytest.mark.parametrize("end", ["crash", "resign"])
def test_a_standby_waits_for_the_end_of_replicas_in_another_mode_that_were_there_before(two: Two, end: str) -> None:
    """And the other way round: whoever came later waits, so that a change of mode needs no moment without replicas."""
    for name in "ab":
        two.crash(name)
    two.run(10)
    two.kind, two.settings = Sharded, SHARDED  # type: ignore[assignment]  # the mode before
    sharded = two.start("s")
    two.run(25)
    assert sharded.owner.place("any").mine
    two.kind, two.settings = Elected, STANDBY
    standby = two.start("b")
    two.run(10)
    assert sharded.owner.place("any").mine
    assert not standby.owner.place("any").mine
    assert "otherwise" in str(standby.owner.problem)
    if end == "resign":
        sharded.resign()
    else:
        two.crash("s")
    assert two.run(20, lambda: standby.owner.place("any").mine) <= 15 + 1.3, "the leader's Lease has the longer time"
    assert standby.owner.problem is None


@pytest.mark.parametrize("ticks", [40, 45, 50, 55])
def test_a_watch_makes_taking_over_as_fast_as_the_duration(two: Two, ticks: int) -> None:
    def shown() -> None:
        for one in two.processes.values():
            one.loop.call_soon(one.owner.noticed, list(two.records.leases.values()))

    for _ in range(ticks):
        shown()
        two.tick()
    two.crash(holder(two).identity)

    def there() -> bool:
        shown()
        return two.all_owned()

    assert two.run(20, there) <= 4 + 0.3
