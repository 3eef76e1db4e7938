"""The registry's entry for the length of an `up`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from auth.jointoken import JoinToken
from cli.failures import Failed
from cli.up.membership import member
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    opened = Stores.open(tmp_path / "clusters.db")
    yield opened
    opened.close()


def test_the_cluster_and_its_token_are_there_inside_and_gone_after(stores: Stores) -> None:
    with member(stores, "edge") as text:
        token = JoinToken.parse(text)
        stored = stores.tokens.get(token.id)
        assert stored is not None
        assert (stored.key, stored.accept) == (token.key(), True)
    assert stores.registry.list() == ()
    assert stores.tokens.list() == ()


def test_what_a_killed_up_left_is_taken_over_though_it_was_another_cluster(stores: Stores) -> None:
    killed = member(stores, "edge")
    killed.__enter__()
    stores.registry.pin("edge", "an old sample's id")
    with member(stores, "edge"):
        found = stores.registry.get("edge")
        assert found is not None
        assert found.uid is None


def test_a_cluster_that_somebody_added_stays_theirs(stores: Stores) -> None:
    stores.registry.add(Cluster("edge", "id"))
    with pytest.raises(Failed, match="choose another --cluster"), member(stores, "edge"):
        pass
    assert stores.registry.get("edge") == Cluster("edge", "id")


def test_one_that_was_removed_meanwhile_is_no_matter(stores: Stores) -> None:
    with member(stores, "edge"):
        stores.registry.remove("edge")
