"""The registry's entry for the length of an `up`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from auth.jointoken import JoinToken
from cli.failures import Failed
from cli.up.membership import member
from gateway.registry import Cluster, SqliteRegistry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqliteRegistry]:
    opened = SqliteRegistry(tmp_path / "clusters.db")
    yield opened
    opened.close()


def test_the_cluster_and_its_token_are_there_inside_and_gone_after(registry: SqliteRegistry) -> None:
    with member(registry, "edge") as text:
        token = JoinToken.parse(text)
        stored = registry.join_token(token.id)
        assert stored is not None
        assert stored.key == token.key()
    assert registry.list() == ()
    assert registry.join_tokens() == ()


def test_what_a_killed_up_left_is_taken_over_though_it_was_another_cluster(registry: SqliteRegistry) -> None:
    killed = member(registry, "edge")
    killed.__enter__()
    registry.pin("edge", "an old sample's id")
    with member(registry, "edge"):
        found = registry.get("edge")
        assert found is not None
        assert found.uid is None


def test_a_cluster_that_somebody_added_stays_theirs(registry: SqliteRegistry) -> None:
    registry.add(Cluster("edge", "id"))
    with pytest.raises(Failed, match="choose another --cluster"), member(registry, "edge"):
        pass
    assert registry.get("edge") == Cluster("edge", "id")


def test_one_that_was_removed_meanwhile_is_no_matter(registry: SqliteRegistry) -> None:
    with member(registry, "edge"):
        registry.remove("edge")
