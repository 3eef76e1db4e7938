"""Shards of clusters, and replicas of shards: the same everywhere, even, and moving as little as can be."""

from __future__ import annotations

from collections import Counter

import pytest

from stub.leases.rendezvous import best, ranked, shard_of

REPLICAS = [f"kulvert-6d5f8b9c4-{one}" for one in ("x2k9p", "7hq4z", "m8w2c", "b5t6r")]


def test_the_shard_of_a_cluster_is_written_down() -> None:
    """Another number here is another owner in an installation that runs."""
    assert [shard_of(one, 64) for one in ("edge-7", "prod-eu-1", "größe")] == [41, 30, 30]
    assert [best(n, ("a", "b", "c")) for n in range(6)] == ["c", "c", "b", "b", "c", "a"]


def test_clusters_are_spread_evenly() -> None:
    count = Counter(shard_of(f"cluster-{n}", 64) for n in range(64_000))
    assert len(count) == 64
    assert 850 < min(count.values()) <= max(count.values()) < 1150


@pytest.mark.parametrize("replicas", [2, 3, 4])
def test_shards_are_spread_evenly(replicas: int) -> None:
    count = Counter(best(n, REPLICAS[:replicas]) for n in range(4096))
    fair = 4096 / replicas
    assert all(0.9 * fair < each < 1.1 * fair for each in count.values())


def test_who_comes_takes_only_what_it_is_best_for() -> None:
    moved = [n for n in range(4096) if best(n, REPLICAS[:3]) != best(n, REPLICAS)]
    assert {best(n, REPLICAS) for n in moved} == {REPLICAS[3]}
    assert 0.9 * 1024 < len(moved) < 1.1 * 1024


def test_of_one_that_goes_only_its_own_move_and_to_the_second_best() -> None:
    for n in range(512):
        first, second = ranked(n, REPLICAS)[:2]
        left = [one for one in REPLICAS if one != REPLICAS[0]]
        assert best(n, left) == (second if first == REPLICAS[0] else first)


def test_the_order_in_which_they_are_named_does_not_count() -> None:
    assert all(ranked(n, REPLICAS) == ranked(n, reversed(REPLICAS)) for n in range(64))
