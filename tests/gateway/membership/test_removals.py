"""The order of a removal: nothing is taken away that a later step needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.membership.removals import INSTALLED, REMEMBERED, Facts, Move, Removal, Step, next_move
from gateway.membership.stores import Stores

NOW = 1000.0
ASKED = Removal("edge", NOW)
THERE = Facts(joined=True, attached=True)
CUT_OFF = Facts(joined=True, attached=False, known=("ServiceAccount a/b",))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores.open(tmp_path / "clusters.db")
    yield made
    made.close()


def at(step: Step, removal: Removal = ASKED) -> Removal:
    """With everything before this step done."""
    for one in Step:
        if one is step:
            return removal
        removal = removal.after(one, NOW, "done")
    raise AssertionError


def moved(removal: Removal, facts: Facts) -> tuple[Move, str]:
    found = next_move(removal, facts)
    assert found is not None
    return found.move, found.message


def test_an_attached_cluster_is_cleaned_up_and_uninstalled_by_its_agent() -> None:
    moves = [moved(at(step), THERE)[0] for step in Step]
    assert moves == [Move.DO, Move.CALL, Move.DO, Move.CALL, Move.DO]
    assert next_move(at(Step.RELEASED).after(Step.RELEASED, NOW, ""), THERE) is None


def test_a_cluster_that_is_cut_off_is_waited_for_unless_it_is_forced() -> None:
    for step in (Step.CLEANED, Step.UNINSTALLED):
        move, why = moved(at(step), CUT_OFF)
        assert (move, "--force" in why) == (Move.WAIT, True)
        forced = next_move(at(step, replace(ASKED, force=True)), CUT_OFF)
        assert forced is not None
        assert forced.move is Move.SKIP
        assert forced.left == (INSTALLED if step is Step.UNINSTALLED else CUT_OFF.known)


def test_others_finalizers_are_waited_for_by_force_as_well() -> None:
    facts = replace(CUT_OFF, finalizers=("example.com/dns",))
    move, why = moved(at(Step.FINALIZED, replace(ASKED, force=True)), facts)
    assert (move, "example.com/dns" in why) == (Move.WAIT, True)


def test_a_name_that_never_had_a_cluster_waits_for_none() -> None:
    facts = Facts(joined=False, attached=False)
    assert {moved(at(step), facts)[0] for step in Step} == {Move.DO, Move.SKIP}


def test_an_agent_that_went_as_it_was_told_is_not_waited_for_again() -> None:
    """Its answer may be lost, or the server with it."""
    told = at(Step.UNINSTALLED, replace(ASKED, told=NOW))
    assert moved(told, CUT_OFF)[0] is Move.WAIT
    move, why = moved(told, replace(CUT_OFF, quiet=True))
    assert (move, "told" in why) == (Move.SKIP, True)
    assert moved(at(Step.UNINSTALLED), replace(CUT_OFF, quiet=True))[0] is Move.WAIT


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=30),
)
def test_the_right_to_come_in_is_the_last_thing_to_go(course: list[tuple[bool, bool, bool, bool]]) -> None:
    """Whatever comes and goes meanwhile, and whenever somebody loses patience."""
    removal = ASKED
    for joined, attached, finalizer, force in course:
        facts = Facts(joined, attached, ("f",) if finalizer else ())
        removal = replace(removal, force=removal.force or force)
        found = next_move(removal, facts)
        if found is None:
            break
        assert [one.step for one in removal.done] == list(Step)[: len(removal.done)]
        if found.move is not Move.WAIT:
            removal = removal.after(found.step, NOW, found.message, found.left)
    assert (removal.finished is not None) == (len(removal.done) == len(Step))


def test_a_wish_outlives_a_restart_with_how_far_it_came(stores: Stores, tmp_path: Path) -> None:
    stores.removals.ask("edge", "ada", False, NOW)
    removal = stores.removals.put(at(Step.UNINSTALLED, stores.removals.ask("edge", "bob", False, NOW + 1)))
    assert (removal.by, removal.requested) == ("ada", NOW)
    stores.removals.put(replace(removal, told=NOW, left=("a", "b"), waiting="x"))
    again = Stores.open(tmp_path / "clusters.db")
    assert again.removals.unfinished() == stores.removals.unfinished()
    assert again.removals.ask("edge", "eve", True, NOW).force
    assert again.removals.ask("edge", "eve", False, NOW).force
    again.close()


def test_that_another_process_has_forced_it_is_not_overwritten(stores: Stores, tmp_path: Path) -> None:
    wish = stores.removals.ask("edge", "ada", False, NOW)
    command = Stores.open(tmp_path / "clusters.db")
    command.removals.ask("edge", "bob", True, NOW + 1)
    stores.removals.put(wish.after(Step.CLOSED, NOW + 1, ""))
    stores.registry.poll()
    command.registry.poll()
    found = [one.removals.unfinished()[0] for one in (stores, command)]
    assert [(one.force, len(one.done)) for one in found] == [(True, 1)] * 2
    stores.removals.put(replace(wish, requested=NOW + 9))  # another wish for the name
    command.registry.poll()
    assert not command.removals.unfinished()[0].force
    command.close()


def test_what_is_done_is_remembered_for_a_while(stores: Stores) -> None:
    stores.removals.put(at(Step.RELEASED).after(Step.RELEASED, NOW, ""))
    assert stores.removals.unfinished() == ()
    assert stores.removals.drop_finished(NOW + REMEMBERED - 1) == 0
    assert stores.removals.ask("edge", "ada", False, NOW + 5).done == ()
    stores.removals.put(at(Step.RELEASED).after(Step.RELEASED, NOW, ""))
    assert stores.removals.drop_finished(NOW + REMEMBERED) == 1
