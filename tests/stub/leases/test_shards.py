"""What one replica concludes from what it sees: told by hand, look by look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from stub.leases.lease import Lease
from stub.leases.rendezvous import best, ranked
from stub.leases.settings import LeaseSettings
from stub.leases.shards import INCARNATION, Deeds, Shards

SETTINGS = LeaseSettings(shards=4, moving=2, step=1.0, settle=5.0, patience=2.0)
A, B = 1000, 2000
"""Incarnations."""
WALL = 3.0


def replica(identity: str, incarnation: int, version: str = "1", **other: Any) -> Lease:
    return replace(Lease(f"kulvert-replica-{identity}", identity, 4, epoch=incarnation, version=version), **other)


def shard(n: int, holder: str, incarnation: int, epoch: int = 10) -> Lease:
    return Lease(f"kulvert-shard-{n}", holder, 4, epoch=epoch, notes={INCARNATION: str(incarnation)}, version="1")


def all_of(holder: str, incarnation: int) -> list[Lease]:
    return [shard(n, holder, incarnation) for n in range(4)]


def looking(listed: Sequence[Lease], *, since: float = 0.0, now: float = 0.0) -> Shards:
    one = Shards("a", SETTINGS)
    while since <= now:
        one.see(listed, since)
        since += 1
    return one


def renewing(one: Shards, others: Sequence[Lease], seconds: Sequence[int], **notes: str) -> None:
    """b renews each second."""
    for second in seconds:
        one.see([*others, replica("b", B, str(second), notes=notes)], second)


def names(leases: Sequence[Lease]) -> list[int]:
    return [int(one.name.rpartition("-")[2]) for one in leases]


def test_where_nobody_ever_was_all_is_claimed() -> None:
    deeds = looking([]).decide(0, WALL, A)
    assert names(deeds.claim) == [0, 1, 2, 3]
    assert {(one.holder, one.notes[INCARNATION], one.version, one.epoch) for one in deeds.claim} == {
        ("a", "1000", "", 3000)
    }


def test_what_a_live_replica_has_is_left_to_it() -> None:
    one = Shards("a", SETTINGS)
    renewing(one, all_of("b", B), range(20))
    assert not one.decide(19, WALL, A)


def test_what_is_missing_beside_others_may_have_been_deleted_under_them() -> None:
    one = Shards("a", SETTINGS)
    renewing(one, [], range(4))
    assert not one.decide(3, WALL, A)
    renewing(one, [], range(4, 12))
    assert one.decide(11, WALL, A).claim


def test_a_silent_replica_is_fenced_by_its_version_and_then_its_shards_are_free() -> None:
    one = looking([*all_of("b", B), replica("b", B, "7")], now=3)
    assert not one.decide(3.9, WALL, A)
    deeds = one.decide(4, WALL, A)
    assert (deeds.claim, [(each.name, each.holder, each.version) for each in deeds.fence]) == (
        [],
        [("kulvert-replica-b", "", "7")],
    )
    one.roster.glimpse(replace(deeds.fence[0], version="8"), 4)
    claimed = one.decide(4, WALL, A).claim
    assert names(claimed) == [0, 1, 2, 3]
    assert {each.epoch for each in claimed} == {3000}


def test_who_could_not_look_for_a_while_concludes_nothing() -> None:
    one = looking([*all_of("b", B), replica("b", B)], now=2)
    assert not one.decide(60, WALL, A)
    one.see([*all_of("b", B), replica("b", B)], 60)
    assert not one.decide(60, WALL, A)


def test_what_another_incarnation_had_is_free() -> None:
    one = looking([*all_of("b", B), replica("b", B + 1)])
    claims = names(one.decide(0, WALL, A).claim)
    assert claims == [n for n in range(4) if best(n, "ab") == "a"]


def test_what_names_a_replica_that_is_not_there_is_free_after_its_time() -> None:
    one = looking(all_of("b", B), now=3)
    assert not one.decide(3, WALL, A)
    one.see(all_of("b", B), 4)
    assert names(one.decide(4, WALL, A).claim) == [0, 1, 2, 3]


def test_the_second_best_waits_for_the_best() -> None:
    others = [shard(n, "", 0) for n in range(4)]
    one = Shards("a", SETTINGS)
    renewing(one, others, range(1))
    first = names(one.decide(0, WALL, A).claim)
    assert first == [n for n in range(4) if ranked(n, "ab")[0] == "a"]
    assert 0 < len(first) < 4
    assert one.next(0) == 2
    renewing(one, others, range(1, 3))
    assert names(one.decide(2, WALL, A).claim) == [0, 1, 2, 3]


def mine(one: Shards, incarnation: int = A) -> list[int]:
    return [n for n in range(4) if one.mine(n, incarnation)]


def test_mine_is_what_names_this_very_incarnation() -> None:
    one = looking(all_of("a", A))
    assert mine(one) == [0, 1, 2, 3]
    assert mine(one, A + 1) == mine(one, 0) == []
    deeds = one.decide(0, 0.0, A + 1)
    assert [(each.epoch, each.holder, each.notes[INCARNATION]) for each in deeds.claim] == [(11, "a", "1001")] * 4


@pytest.mark.parametrize("note", ["", "x", "-1000", "1e3", "１０００", "9" * 40])
def test_what_does_not_say_whose_it_is_is_nobodys(note: str) -> None:
    one = looking([replace(shard(0, "a", A), notes={INCARNATION: note})])
    assert mine(one) == []


def gifts(one: Shards, now: float) -> Deeds:
    deeds = one.decide(now, WALL, A)
    assert not deeds.claim
    return deeds


def test_gifts_are_for_a_settled_and_better_one_few_and_in_steps() -> None:
    better = [n for n in range(4) if best(n, "ab") == "b"]
    one = Shards("a", replace(SETTINGS, moving=1))
    renewing(one, all_of("a", A), range(5))
    assert not gifts(one, 4)
    renewing(one, all_of("a", A), range(5, 6))
    (gift,) = gifts(one, 5).give
    assert names([gift]) == better[:1]
    assert (gift.holder, gift.notes[INCARNATION], gift.transitions) == ("b", str(B), 1)
    assert not gifts(one, 5.9)
    assert gifts(one, 6)


def test_nothing_is_given_to_one_that_leaves_or_falls_silent() -> None:
    one = Shards("a", SETTINGS)
    renewing(one, all_of("a", A), range(10), leaving="true")
    assert not gifts(one, 9)
    renewing(one, all_of("a", A), range(10, 20))
    assert gifts(one, 19)
    for second in (20, 21, 22):
        one.see([*all_of("a", A), replica("b", B, "19")], second)
    assert not gifts(one, 22)


def test_a_gift_is_not_mine_from_before_it_is_written_until_it_is_certain() -> None:
    one = Shards("a", SETTINGS)
    renewing(one, all_of("a", A), range(10))
    gift = gifts(one, 9).give[0]
    n = one.number(gift)
    one.giving(gift)
    assert n not in mine(one)
    renewing(one, all_of("a", A), range(10, 12))
    assert n not in mine(one), "no answer came, and the record shows nothing: it may yet take effect"
    (claim,) = one.decide(11, WALL, A).claim
    assert (one.number(claim), claim.holder) == (n, "a"), "a write of my own settles it"
    one.wrote(replace(claim, version="2"), 11)
    assert n in mine(one)


def test_a_gift_that_was_refused_is_not_mine_before_the_next_look() -> None:
    one = Shards("a", SETTINGS)
    renewing(one, all_of("a", A), range(10))
    gift = gifts(one, 9).give[0]
    one.giving(gift)
    one.refused(gift)
    assert one.number(gift) not in mine(one)
    assert not one.decide(9, WALL, A).claim
    renewing(one, all_of("a", A), range(10, 11))
    assert one.number(gift) in mine(one)


def test_what_was_deleted_under_its_holder_is_made_anew_by_it() -> None:
    one = Shards("a", SETTINGS)
    renewing(one, all_of("a", A), range(3))
    renewing(one, all_of("a", A)[1:], range(3, 4))
    (claim,) = one.decide(3, 0.0, A).claim
    assert (one.number(claim), claim.version) == (0, "")
    assert claim.epoch > 10
    assert mine(one) == [1, 2, 3]


def test_a_leaving_one_gives_each_to_the_best_of_the_others_or_to_nobody() -> None:
    one = Shards("a", SETTINGS)
    renewing(one, all_of("a", A), range(1))
    given = list(one.parting(None, 0, WALL, A))
    assert {each.holder for each in given} == {"b"}
    assert names(list(one.parting({2}, 0, WALL, A))) == [2]
    alone = looking(all_of("a", A))
    assert [(each.holder, each.epoch) for each in alone.parting(None, 0, WALL, A)] == [("", 10)] * 4


def test_nothing_is_shared_with_one_that_counts_otherwise_and_was_there_before() -> None:
    older = replica("b", A - 1, notes={"shards": "8"})
    one = looking([*[shard(n, "", 0) for n in range(4)], older])
    assert one.roster.discord(4, A) == "b"
    assert not one.decide(0, WALL, A)
    newer = replica("b", A + 1, notes={"shards": "8"})
    one = looking([*[shard(n, "", 0) for n in range(4)], newer])
    assert one.roster.discord(4, A) is None
    assert names(one.decide(0, WALL, A).claim) == [0, 1, 2, 3]


def test_a_replicas_lease_is_needed_while_a_shard_hangs_on_it() -> None:
    one = looking([*all_of("b", B)[:1], replica("b", B, holder="")])
    assert one.names(replica("b", B))
    assert not one.names(replica("b", B + 1))
    assert not one.names(replica("a", B))
