"""Pinned keys: a cluster's report counts for that cluster alone, is bounded, and goes with the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.membership.clusterkeys import HISTORY, PAUSE, REPORT, BadReport, ClusterKeys, KeyReport, report_methods
from gateway.membership.registry import Change, Cluster, SqliteRegistry
from stub.session import AgentInfo
from tests.auth.test_clustertokens import ISSUER, jwks
from tunnel.calls import CallFailed

PARAMS: dict[str, Any] = {
    "issuer": ISSUER, "audiences": [ISSUER], "jwks": jwks("edge").decode(), "version": "v1.36.0",
}  # fmt: skip
AGENT = AgentInfo("edge-7", "uid-7", "agent", "i", "kulvert/1", "10.0.0.1:1")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqliteRegistry]:
    opened = SqliteRegistry(tmp_path / "kulvert.db")
    yield opened
    opened.close()


def report(*names: str, **changes: Any) -> KeyReport:
    return KeyReport.of(PARAMS | {"jwks": jwks(*names).decode()} | changes)


def test_the_first_report_is_pinned_and_read_again_at_the_next_start(registry: SqliteRegistry, tmp_path: Path) -> None:
    keys = ClusterKeys(registry.database)
    assert keys.get("edge-7") is None
    assert keys.report("edge-7", "uid-7", report("edge"), 100.0)
    assert not keys.report("edge-7", "uid-7", report("edge"), 101.0)
    again = SqliteRegistry(tmp_path / "kulvert.db")
    kept = ClusterKeys(again.database).get("edge-7")
    again.close()
    assert kept is not None
    assert (kept.issuer, kept.audiences) == (ISSUER, frozenset({ISSUER}))
    assert [key.kid for key in kept.keys.keys] == ["edge-1"]
    assert ClusterKeys(registry.database).get("other") is None


def test_rotated_keys_are_taken_over_and_those_that_are_gone_are_not_believed(registry: SqliteRegistry) -> None:
    told: list[int] = []
    keys = ClusterKeys(registry.database)
    keys.subscribe(lambda: told.append(1))
    keys.report("edge-7", "uid-7", report("edge"), 0.0)
    keys.report("edge-7", "uid-7", report("edge", "other"), PAUSE)
    keys.report("edge-7", "uid-7", report("other"), 2 * PAUSE)
    found = keys.get("edge-7")
    assert found is not None
    assert [key.kid for key in found.keys.keys] == ["other-1"]
    assert len(told) == 3
    pinned = keys.pinned("edge-7")
    assert pinned is not None
    assert (pinned.first, pinned.changed) == (0.0, 2 * PAUSE)


def test_changes_come_no_faster_than_anybody_rotates_and_the_history_is_bounded(registry: SqliteRegistry) -> None:
    keys = ClusterKeys(registry.database)
    keys.report("edge-7", "uid-7", report("edge"), 0.0)
    with pytest.raises(BadReport, match="already"):
        keys.report("edge-7", "uid-7", report("other"), PAUSE - 1)
    for number in range(1, 3 * HISTORY):
        keys.report("edge-7", "uid-7", report("edge" if number % 2 else "other", version=str(number)), number * PAUSE)
    with registry.database.writing() as database:
        assert database.execute("SELECT count(*) FROM cluster_key_history").fetchone() == (HISTORY,)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": ""}, {"issuer": 5}, {"issuer": "x" * 2000}, {"issuer": "a\nb"}, {"audiences": []},
        {"audiences": "x"}, {"audiences": ["x"] * 17}, {"audiences": [5]}, {"jwks": 5}, {"jwks": " " * 40_000},
        {"jwks": "{}"}, {"jwks": '{"keys": []}'}, {"jwks": "é"}, {"jwks": "\ud800"}, {"version": 5},
    ],
)  # fmt: skip
def test_a_report_is_bounded_and_holds_a_key(changes: dict[str, Any], registry: SqliteRegistry) -> None:
    keys = ClusterKeys(registry.database)
    with pytest.raises(BadReport):
        keys.report("edge-7", "uid-7", KeyReport.of(PARAMS | changes), 0.0)
    assert keys.get("edge-7") is None


def test_another_clusters_keys_are_not_taken_for_ones_own(registry: SqliteRegistry) -> None:
    """They are public: whoever reported them would be sent the tokens that they have signed."""
    keys = ClusterKeys(registry.database)
    keys.report("edge-7", "uid-7", report("edge"), 0.0)
    with pytest.raises(BadReport, match="another cluster's"):
        keys.report("hostile", "uid-8", report("other", "edge"), 0.0)
    assert keys.get("hostile") is None
    assert keys.report("second-name", "uid-7", report("edge"), 0.0), "the same cluster under another name"


def test_what_is_not_the_registered_clusters_is_dropped(registry: SqliteRegistry) -> None:
    keys = ClusterKeys(registry.database)
    for name, own in (("a", "edge"), ("b", "other"), ("c", "third")):
        keys.report(name, f"uid-{name}", report(own), 0.0)
    keys.changed(Change.REMOVED, Cluster("a", "uid-a"))
    keys.changed(Change.UPDATED, Cluster("b", "uid-of-another"))
    keys.changed(Change.UPDATED, Cluster("c", "uid-c"))
    assert [keys.get(name) is not None for name in ("a", "b", "c")] == [False, False, True]
    keys.keep_only([Cluster("c", None)])
    assert keys.get("c") is None
    assert ClusterKeys(registry.database).get("c") is None


@pytest.mark.parametrize("removed", [True, False])
def test_what_the_command_removes_or_gives_away_is_dropped_by_the_poll_that_sees_it(
    registry: SqliteRegistry, tmp_path: Path, removed: bool
) -> None:
    keys = ClusterKeys(registry.database)
    registry.subscribe(keys.changed)
    registry.add(Cluster("edge-7", "uid-7", 1.0))
    keys.report("edge-7", "uid-7", report("edge"), 0.0)
    command = SqliteRegistry(tmp_path / "kulvert.db")
    if removed:
        command.remove("edge-7")
    else:
        command.switch("edge-7", "uid-7", "uid-8", 2.0)
    command.close()
    registry.poll()
    assert keys.get("edge-7") is None


async def test_an_agents_call_reports_for_its_own_cluster_whatever_it_says(registry: SqliteRegistry) -> None:
    keys = ClusterKeys(registry.database)
    method = report_methods(keys, AGENT, lambda: 5.0)[REPORT]
    assert await method(PARAMS | {"cluster": "b", "cluster_id": "uid-b"}) == {"changed": True}
    assert keys.get("edge-7") is not None
    assert keys.get("b") is None
    with pytest.raises(CallFailed, match="issuer"):
        await method({**PARAMS, "issuer": None})
