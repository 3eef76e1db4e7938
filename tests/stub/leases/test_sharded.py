"""Sharded mode as several replicas live it, in made-up time.

In each tick the world looks for two owners of one cluster, and for an epoch that does not rise.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from stub.leases.lease import Lease, LeasesUnavailable
from stub.leases.rendezvous import best, shard_of
from stub.leases.settings import LeaseSettings
from stub.leases.sharded import Sharded
from stub.ownership import Place
from tests.stub.leases.world import SHARDED, Process, World, world

Many = World[Sharded]


@pytest.fixture
def three() -> Iterator[Many]:
    """a, b and c, all settled."""
    with world(Sharded, SHARDED) as within:
        for name in "abc":
            within.start(name)
        within.run(15)
        assert owned(within) == {n: best(n, "abc") for n in range(6)}
        yield within


def owned(within: Many) -> dict[int, str]:
    return {n: within.owner(cluster) for n, cluster in enumerate(within.clusters)}


def epochs(within: Many) -> dict[str, int]:
    return {cluster: within.last[cluster][1] for cluster in within.clusters}


def at_best(within: Many, names: str) -> Callable[[], bool]:
    return lambda: owned(within) == {n: best(n, names) for n in range(6)}


def test_the_first_replica_has_all_within_a_second() -> None:
    with world(Sharded, SHARDED) as within:
        within.start("a")
        assert within.run(10, within.all_owned) < 1
        assert within.processes["a"].owner.mine() == frozenset(range(6))


def test_every_replica_knows_where_a_cluster_is(three: Many) -> None:
    for n, cluster in enumerate(three.clusters):
        places = {name: one.owner.place(cluster) for name, one in three.processes.items()}
        assert {place.replica for place in places.values()} == {best(n, "abc")}
        assert {name for name, place in places.items() if place.mine} == {best(n, "abc")}
        assert len({place.epoch for place in places.values()}) == 1
    assert [one.identity for one in three.processes["b"].owner.replicas()] == ["b", "a", "c"]
    assert three.processes["b"].owner.replicas()[1].peer_address == "a:1"


def test_one_leads_and_all_know_who(three: Many) -> None:
    (leader,) = [name for name, one in three.processes.items() if one.owner.leading]
    assert {one.owner.leader() for one in three.processes.values()} == {leader}


def test_of_one_that_is_killed_others_have_its_shards_within_seconds(three: Many) -> None:
    three.crash("c")
    assert three.run(20, three.all_owned) <= 4 + 1 + 0.3
    assert owned(three) == {n: best(n, "ab") for n in range(6)}


def test_with_a_watch_it_is_faster(three: Many) -> None:
    def shown() -> None:
        for one in three.processes.values():
            one.loop.call_soon(one.owner.noticed, list(three.records.leases.values()))

    for _ in range(40):
        shown()
        three.tick()
    three.crash("c")

    def there() -> bool:
        shown()
        return three.all_owned()

    assert three.run(20, there) <= 4 + 0.3


def test_one_that_was_paused_stops_in_time_and_begins_anew_with_higher_epochs(three: Many) -> None:
    before = epochs(three)
    paused = three.processes["c"]
    paused.paused = True
    mine = paused.owner.mine()
    three.run(3.1)
    assert not paused.owner.mine(), "its own clock tells, before it has done anything"
    three.run(20, three.all_owned)
    three.run(60)
    paused.paused = False
    three.tick()
    assert not paused.owner.mine()
    three.run(20)
    assert at_best(three, "abc")()
    assert all(epochs(three)[three.clusters[n]] > before[three.clusters[n]] for n in mine)


def test_one_that_was_paused_while_nobody_could_take_anything_goes_on(three: Many) -> None:
    before = epochs(three)
    three.processes["c"].paused = True
    three.run(3.5)
    assert not three.all_owned()
    three.processes["c"].paused = False
    assert three.run(5, three.all_owned) < 0.5
    assert (at_best(three, "abc")(), epochs(three)) == (True, before)


def test_one_that_wakes_while_another_takes_its_shards_has_them_or_not(three: Many) -> None:
    """It renews in time, on the very edge: what counts is who wrote its own Lease first."""
    for late in range(0, 24, 2):
        paused = three.processes["c"]
        paused.paused = True
        three.run(3.5 + late * 0.05)
        paused.paused = False
        paused.store.before = 0.2
        three.run(15)
        paused.store.before = 0.01
        three.run(15)
        assert at_best(three, "abc")()


def test_a_hub_that_is_away_longer_than_the_leases_moves_nothing(three: Many) -> None:
    before = epochs(three)
    for one in three.processes.values():
        one.store.down = True
    three.run(2)
    assert three.all_owned(), "mine until the own deadline"
    three.run(58)
    assert owned(three) == dict.fromkeys(range(6), "")
    assert "cut off" in str(three.processes["a"].owner.problem)
    for one in three.processes.values():
        one.store.down = False
    assert three.run(10, three.all_owned) < 2
    three.run(10)
    assert (at_best(three, "abc")(), epochs(three)) == (True, before)
    assert three.processes["a"].owner.problem is None


def test_a_hub_that_comes_back_to_some_first_moves_nothing_of_the_others(three: Many) -> None:
    before = epochs(three)
    for one in three.processes.values():
        one.store.down = True
    three.run(30)
    for name in "abc":
        three.processes[name].store.down = False
        three.run(1.5)
    three.run(10)
    assert (at_best(three, "abc")(), epochs(three)) == (True, before)


def test_one_that_starts_again_under_its_name_inherits_nothing_and_has_it_anew_at_once(three: Many) -> None:
    before = epochs(three)
    mine = three.processes["c"].owner.mine()
    three.crash("c")
    again = three.start("c")
    three.processes["c"].skew = -86_400
    assert not again.owner.mine()
    assert three.run(10, three.all_owned) < 1
    assert again.owner.mine() == mine
    assert all(epochs(three)[three.clusters[n]] > before[three.clusters[n]] for n in mine)


def test_a_gift_whose_answer_is_lost_is_nobodys_until_it_is_certain() -> None:
    with world(Sharded, SHARDED) as within:
        giver = within.start("a")
        within.run(3)
        within.start("b")
        within.run(3)
        giver.store.late = ("-shard-", 1.5)  # when the giver waits for the answer no more; its own Lease it renews
        within.run(8)
        giver.store.late = ("", 0.0)
        within.run(30)
        assert at_best(within, "ab")()


def test_gifts_are_told_when_they_are_written_and_not_ours_any_more() -> None:
    with world(Sharded, SHARDED) as within:
        giver = within.start("a")
        within.run(3)
        seen: list[tuple[Place, Place]] = []
        taker = within.start("b")

        async def told(shards: Any) -> None:
            clusters = [within.clusters[n] for n in shards]
            seen.extend((giver.owner.place(one), taker.owner.place(one)) for one in clusters)
            raise OSError("a listener's fault stops nothing")

        giver.owner._on_give_up = told
        within.run(20)
        assert at_best(within, "ab")()
        assert len(seen) == sum(best(n, "ab") == "b" for n in range(6))
        assert [(one.replica, one.mine) for one, _ in seen] == [("b", False)] * len(seen)


def test_who_joins_is_given_few_at_a_time_and_not_before_it_is_settled() -> None:
    setting = LeaseSettings(shards=16, moving=1, step=3.0, settle=5.0)
    with world(Sharded, setting) as within:
        within.start("a")
        within.run(3)
        joined = within.start("b")
        moves = [len(joined.owner.mine()) for _ in range(50) if within.run(1)]
        assert moves[4] == 0
        assert max(later - earlier for earlier, later in pairwise(moves)) <= setting.moving
        assert max(later - earlier for earlier, later in zip(moves, moves[9:], strict=False)) <= 4 * setting.moving
        assert moves[-1] == sum(best(n, "ab") == "b" for n in range(16))


def test_one_that_comes_and_goes_is_given_nothing() -> None:
    with world(Sharded, replace(SHARDED, settle=5.0)) as within:
        within.start("a")
        within.run(3)
        before = epochs(within)
        for _ in range(5):
            within.start("b")
            within.run(2.5)
            within.crash("b")
            within.run(1)
        assert epochs(within) == before


def test_who_resigns_leaves_at_once_and_the_others_have_all(three: Many) -> None:
    leaving = next(one for one in three.processes.values() if one.owner.leading)
    mine = leaving.owner.mine()
    leaving.loop.call_soon(leaving.resign)
    three.tick()
    assert not leaving.owner.mine()
    assert not leaving.owner.leading
    assert three.run(5, three.all_owned) <= 1.2
    left = "abc".replace(leaving.identity, "")
    assert at_best(three, left)()
    three.run(2)
    assert leaving.other is not None
    assert leaving.other.done()
    assert sorted(leaving.gave) == sorted(mine)
    assert three.records.leases[f"kulvert-replica-{leaving.identity}"].holder == ""
    three.crash(leaving.identity)
    three.run(25)
    assert f"kulvert-replica-{leaving.identity}" not in three.records.leases, "the leader tidies"
    assert at_best(three, left)()


def test_the_last_one_that_resigns_leaves_all_free() -> None:
    with world(Sharded, SHARDED) as within:
        within.start("a")
        within.run(3)
        within.processes["a"].resign()
        within.run(2)
        assert {one.holder for one in within.records.leases.values()} == {""}
        within.crash("a")
        within.start("b")
        assert within.run(5, within.all_owned) < 1
        within.run(3)
        assert within.processes["b"].owner.leading


def test_resigning_again_asks_the_hub_nothing() -> None:
    with world(Sharded, SHARDED) as within:
        one = within.start("a")
        within.run(3)
        one.resign()
        within.run(2)
        one.life.cancel()
        within.run(1)
        before = dict(within.records.calls)
        one.resign()
        within.run(2)
        assert one.other is not None
        assert one.other.done()
        assert dict(within.records.calls) == before


def test_one_that_is_cancelled_while_many_writes_wait_leaves_none_behind(recwarn: pytest.WarningsRecorder) -> None:
    with world(Sharded, replace(SHARDED, shards=20)) as within:
        one = within.start("a")
        within.run(5, lambda: "write a lease" in [task.get_name() for task in asyncio.all_tasks(one.loop)])
        one.life.cancel()
        for _ in range(10):
            one.turn()
        assert one.life.done()
        assert not asyncio.all_tasks(one.loop)
        gc.collect()
    assert not [str(each.message) for each in recwarn]


def test_some_can_be_given_away_by_one_that_leaves(three: Many) -> None:
    some = three.processes["c"]
    one, *rest = sorted(some.owner.mine())
    some.other = some.loop.create_task(some.owner.resign({one}))
    three.run(3)
    assert some.owner.mine() == set(rest)
    three.run(20)
    assert some.owner.mine() == set(rest), "a replica that leaves is given nothing"
    assert three.owner(three.clusters[one]) == best(one, "ab")


def test_a_shard_whose_lease_was_deleted_is_made_anew_by_its_holder(three: Many) -> None:
    before = epochs(three)
    lease = three.records.leases.pop("kulvert-shard-0")
    three.run(3)
    assert at_best(three, "abc")()
    assert epochs(three)[three.clusters[0]] > before[three.clusters[0]]
    assert three.records.leases[lease.name].holder == lease.holder


def test_a_shard_whose_lease_vanishes_while_its_holder_sees_nothing_is_not_taken_before_it_stops(three: Many) -> None:
    holder = three.processes[three.owner(three.clusters[0])]

    async def fails() -> Sequence[Lease]:
        raise LeasesUnavailable("no list for you")

    holder.store.list = fails  # type: ignore[method-assign]  # it can renew, and not look
    del three.records.leases["kulvert-shard-0"]
    three.run(2)
    assert three.owner(three.clusters[0]) == holder.identity
    three.run(1.5)
    assert not holder.owner.mine()
    three.run(10)
    assert three.owner(three.clusters[0]) not in ("", holder.identity)


def test_a_replica_whose_lease_was_deleted_has_its_shards_anew(three: Many) -> None:
    before = epochs(three)
    mine = three.processes["c"].owner.mine()
    three.processes["c"].skew = -86_400
    del three.records.leases["kulvert-replica-c"]
    three.run(10)
    assert at_best(three, "abc")()
    assert all(epochs(three)[three.clusters[n]] > before[three.clusters[n]] for n in mine)


def test_a_replica_whose_lease_was_deleted_while_it_cannot_write_is_not_replaced_before_it_stops(three: Many) -> None:
    process = three.processes["c"]
    process.store.down = True
    del three.records.leases["kulvert-replica-c"]
    three.run(1.5)
    assert process.owner.mine()
    three.run(10)
    assert at_best(three, "ab")()


def test_wall_clocks_that_jump_move_nothing(three: Many) -> None:
    before = epochs(three)
    for process, jump in zip(three.processes.values(), (-86_400, 86_400, -3), strict=True):
        process.skew += jump
    three.run(20)
    assert (at_best(three, "abc")(), epochs(three)) == (True, before)


def test_what_a_former_process_of_a_name_had_is_anothers_if_the_new_one_cannot_take_it(three: Many) -> None:
    three.crash("c")
    again = three.start("c")
    put = again.store.put

    async def put_replicas(lease: Lease) -> Lease:
        if "-shard-" in lease.name:
            raise LeasesUnavailable("no")
        return await put(lease)

    again.store.put = put_replicas  # type: ignore[method-assign]  # a fault of one replica
    assert three.run(10, three.all_owned) <= SHARDED.patience + 2
    assert "written" in str(again.owner.problem)


def test_a_shard_that_its_best_does_not_claim_is_the_second_bests(three: Many) -> None:
    """c cannot write shards, though it renews."""
    put = three.processes["c"].store.put

    async def put_replicas(lease: Lease) -> Lease:
        if "-shard-" in lease.name:
            raise LeasesUnavailable("no")
        return await put(lease)

    three.processes["c"].store.put = put_replicas  # type: ignore[method-assign]  # a fault of one replica
    for n in [n for n in range(6) if best(n, "abc") == "c"]:
        name = f"kulvert-shard-{n}"
        three.records.put(replace(three.records.leases[name], holder=""))
    three.run(0.9)
    assert not three.all_owned()
    assert three.run(10, three.all_owned) <= SHARDED.patience + 1
    assert owned(three) == {n: best(n, "ab") for n in range(6)}


def test_those_who_listen_are_told_when_time_alone_ends_it(three: Many) -> None:
    process = three.processes["c"]
    told: list[frozenset[int]] = []
    end = process.owner.subscribe(lambda: told.append(process.owner.mine()))
    process.store.down = True
    three.run(4)
    assert told[-1] == frozenset()
    end()
    count = len(told)
    process.store.down = False
    three.run(10)
    assert process.owner.mine()
    assert len(told) == count


def test_a_process_whose_task_was_cancelled_holds_nothing(three: Many) -> None:
    process = three.processes["c"]
    told: list[bool] = []
    process.owner.subscribe(lambda: told.append(True))
    process.life.cancel()
    for _ in range(10):
        process.loop.turn()
    assert process.life.done()
    assert not process.owner.mine()
    assert not process.owner.leading
    assert told
    del three.processes["c"]
    three.run(10)
    assert not process.owner.mine()
    process.end()


def test_one_that_counts_shards_otherwise_holds_none_beside_the_old() -> None:
    with world(Sharded, SHARDED) as within:
        within.start("a")
        within.run(3)
        within.settings = replace(SHARDED, shards=7)
        newer = within.start("b")
        within.settings = SHARDED
        within.run(10)
        assert not newer.owner.mine()
        assert "deals clusters out otherwise" in str(newer.owner.problem)
        assert within.processes["a"].owner.mine() == frozenset(range(6))
        within.crash("a")
        within.run(10)
        assert newer.owner.mine() == frozenset(range(7))
        assert newer.owner.problem is None


@pytest.mark.parametrize(("replicas", "most"), [(3, 4.0), (10, 11.5)])
def test_writes_are_a_matter_of_replicas_and_of_nothing_else(replicas: int, most: float) -> None:
    setting = LeaseSettings()
    with world(Sharded, setting) as within:
        for n in range(replicas):
            within.start(f"kulvert-{n}")
        within.run(20 if replicas < 5 else 30)
        for n in range(10_000):
            within.processes["kulvert-0"].owner.place(f"cluster-{n}")
        before = within.records.writes, within.records.calls["list"]
        within.run(20)
        writes, lists = (within.records.writes - before[0]) / 20, (within.records.calls["list"] - before[1]) / 20
    print(f"{replicas} replicas, 64 shards: {writes:.1f} writes and {lists:.1f} lists a second")
    assert writes <= most
    assert lists <= replicas * 1.1


def test_a_place_is_read_from_memory(three: Many) -> None:
    owner = three.processes["a"].owner
    names = [f"cluster-{n}" for n in range(1000)]
    assert all(owner.shard(name) == shard_of(name, 6) for name in names)
    started = time.perf_counter()
    for _ in range(20):
        for name in names:
            owner.place(name)
    each = (time.perf_counter() - started) / 20_000
    print(f"place: {each * 1e9:.0f} ns")
    assert each < 20e-6


def test_what_cannot_be_is_refused_at_the_start(three: Many) -> None:
    process: Process[Sharded] = three.processes["a"]
    with pytest.raises(ValueError, match="shards must be"):
        Sharded(replace(process.me), replace(SHARDED, shards=0), process.store)
    with pytest.raises(ValueError, match="pod's name"):
        Sharded(replace(process.me, identity="no/pod"), SHARDED, process.store)
