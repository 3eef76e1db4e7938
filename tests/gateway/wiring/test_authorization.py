"""Who owns what, of clusters that are there and of names that are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from auth.identity import Identity
from gateway.config import ServerConfig
from gateway.membership.registry import Cluster, SqliteRegistry
from gateway.state import State
from gateway.wiring.authorization import Authorization

GRANTS = """
apiVersion: kulvert.dev/v1alpha1
kind: Grants
grants:
- name: not-prod
  subjects: [{kind: User, name: olga}]
  clusterSelector: {matchExpressions: [{key: env, operator: NotIn, values: [prod]}]}
  delegate: true
- name: edge
  subjects: [{kind: User, name: otto}]
  clusters: ["edge-*"]
  delegate: true
- name: team-a
  subjects: [{kind: User, name: ada}]
  clusters: [dev-1]
  access: {readOnly: true, namespaces: [team-a]}
  delegate: true
"""


@pytest.fixture
def authorization(tmp_path: Path) -> Iterator[Authorization]:
    (tmp_path / "grants.yaml").write_text(GRANTS)
    registry = SqliteRegistry(tmp_path / "kulvert.db")
    registry.add(Cluster("prod-1", "u1", 1.0, (("env", "prod"),)))
    registry.add(Cluster("dev-1", "u2", 1.0, (("env", "dev"),)))
    config = ServerConfig(state_dir=tmp_path)
    yield Authorization(config, State(tmp_path), registry.database, registry, None)
    registry.close()


def identity(user: str, *groups: str) -> Identity:
    return Identity(user, groups, "", (), "test", f"JTI={user}", 9e9)


def test_an_owner_by_labels_owns_the_clusters_that_have_them(authorization: Authorization) -> None:
    assert authorization.owns(identity("olga"), "dev-1")
    assert not authorization.owns(identity("olga"), "prod-1")


def test_who_may_grant_of_a_part_of_a_cluster_has_no_say_over_the_whole(authorization: Authorization) -> None:
    """To remove it, give its name away, or make service accounts in namespaces that are not his."""
    assert authorization.decider.decide(identity("ada"), "dev-1", 1.0).allowed
    assert not authorization.owns(identity("ada"), "dev-1")


def test_only_administrators_manage_all(authorization: Authorization) -> None:
    assert authorization.owns(identity("root", "kulvert:admins"), "")
    assert not authorization.owns(identity("olga"), "")


def test_a_name_that_is_not_there_has_no_labels_yet_and_is_nobodys_by_labels(authorization: Authorization) -> None:
    """Whoever asks for it may bring a token that labels it prod."""
    assert not authorization.owns(identity("olga"), "prod-2")


def test_a_name_that_is_not_there_is_its_owners_by_name_and_an_administrators(authorization: Authorization) -> None:
    assert authorization.owns(identity("otto"), "edge-2")
    assert not authorization.owns(identity("otto"), "prod-2")
    assert authorization.owns(identity("root", "kulvert:admins"), "prod-2")


async def test_a_typing_error_in_the_grants_file_is_shown_and_takes_no_replica_out(
    authorization: Authorization, tmp_path: Path
) -> None:
    (tmp_path / "grants.yaml").write_text(GRANTS + "  acces: {}\n")
    await authorization.part.looks["grants"]()
    assert "acces" in (authorization.part.warnings["grants"]() or "")
    assert authorization.part.checks["grants"]() is None
    assert authorization.owns(identity("olga"), "dev-1")
