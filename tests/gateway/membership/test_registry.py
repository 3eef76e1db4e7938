"""The clusters of a single server: what is written stays, and what is read is in memory."""

from __future__ import annotations

import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.membership.cluster import MARKS, TERMINATING, Mark
from gateway.membership.conditions import Condition
from gateway.membership.inventory import Inventory
from gateway.membership.registry import Change, Cluster, ClusterRegistry, RegistryError, SqliteRegistry

PROD = Cluster("prod", None, 1000.0, (("env", "prod"), ("zone", "eu")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "kulvert.db"


@pytest.fixture
def registry(path: Path) -> Iterator[SqliteRegistry]:
    made = SqliteRegistry(path)
    yield made
    made.close()


def reopened(path: Path) -> tuple[Cluster, ...]:
    again = SqliteRegistry(path)
    try:
        return again.list()
    finally:
        again.close()


def test_a_cluster_is_found_by_name_and_still_there_after_a_restart(registry: SqliteRegistry, path: Path) -> None:
    port: ClusterRegistry = registry
    port.add(PROD)
    port.add(Cluster("a-first"))
    assert port.get("prod") == PROD
    assert port.get("other") is None
    assert [cluster.name for cluster in port.list()] == ["a-first", "prod"]
    assert reopened(path) == port.list()


def test_files_and_directory_are_their_owners_alone(registry: SqliteRegistry, path: Path) -> None:
    registry.add(PROD)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"kulvert.db": 0o600, "kulvert.db-wal": 0o600, "kulvert.db-shm": 0o600}


def test_a_file_open_to_others_is_refused(path: Path) -> None:
    SqliteRegistry(path).close()
    path.chmod(0o644)
    with pytest.raises(RegistryError, match="chmod 600"):
        SqliteRegistry(path)


def test_a_file_of_a_later_version_is_refused(registry: SqliteRegistry, path: Path) -> None:
    registry.close()
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE store_version SET version = 99")
    database.close()
    with pytest.raises(RegistryError, match="later Kulvert"):
        SqliteRegistry(path)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    path.chmod(0o600)
    with pytest.raises(RegistryError, match="cannot be used"):
        SqliteRegistry(path)


def test_a_name_is_taken_once_and_an_unknown_one_cannot_be_removed(registry: SqliteRegistry) -> None:
    registry.add(PROD)
    with pytest.raises(RegistryError, match="already"):
        registry.add(Cluster("prod", "other"))
    assert registry.get("prod") == PROD
    for missing in (lambda: registry.remove("x"), lambda: registry.pin("x", "uid")):
        with pytest.raises(RegistryError, match="no cluster"):
            missing()


def test_a_pinned_cluster_stays_the_one_it_is(registry: SqliteRegistry, path: Path) -> None:
    registry.add(PROD)
    assert registry.pin("prod", "uid-1").uid == "uid-1"
    assert registry.pin("prod", "uid-1").uid == "uid-1"
    for other in ("uid-2", ""):
        with pytest.raises(RegistryError):
            registry.pin("prod", other)
    assert reopened(path)[0].uid == "uid-1"
    assert reopened(path)[0].labels == PROD.labels


def test_that_the_hub_has_accepted_it_is_remembered_until_it_takes_it_back(
    registry: SqliteRegistry, path: Path
) -> None:
    registry.add(PROD)
    registry.pin("prod", "uid-1")
    assert registry.hub_has_accepted("prod", "uid-1") == reopened(path)[0] == registry.get("prod")
    assert reopened(path)[0].hub_accepted == "uid-1"
    registry.deny("prod", True)
    registry.deny("prod", False)
    assert reopened(path)[0] == registry.get("prod")
    assert reopened(path)[0].hub_accepted == ""
    with pytest.raises(RegistryError, match="no cluster"):
        registry.hub_has_accepted("x", "uid-1")


def test_of_two_processes_that_pin_one_wins(registry: SqliteRegistry, path: Path) -> None:
    registry.add(PROD)
    other = SqliteRegistry(path)
    try:
        other.pin("prod", "uid-1")
        with pytest.raises(RegistryError, match="pinned to another"):
            registry.pin("prod", "uid-2")
    finally:
        other.close()


def test_subscribers_hear_of_each_change_until_they_leave(registry: SqliteRegistry) -> None:
    heard: list[tuple[Change, str, str | None]] = []
    leave = registry.subscribe(lambda change, cluster: heard.append((change, cluster.name, cluster.uid)))
    registry.add(PROD)
    registry.pin("prod", "u")
    registry.pin("prod", "u")
    registry.remove("prod")
    leave()
    leave()
    registry.add(PROD)
    assert heard == [(Change.ADDED, "prod", None), (Change.UPDATED, "prod", "u"), (Change.REMOVED, "prod", "u")]


def test_what_another_process_writes_arrives_with_a_poll(registry: SqliteRegistry, path: Path) -> None:
    registry.add(Cluster("stays"))
    registry.add(Cluster("goes"))
    heard: list[tuple[Change, str]] = []
    registry.subscribe(lambda change, cluster: heard.append((change, cluster.name)))
    assert not registry.poll()
    other = SqliteRegistry(path)
    other.add(Cluster("comes"))
    other.remove("goes")
    other.pin("stays", "uid")
    other.close()
    assert registry.poll()
    assert [cluster.name for cluster in registry.list()] == ["comes", "stays"]
    assert heard == [(Change.ADDED, "comes"), (Change.REMOVED, "goes"), (Change.UPDATED, "stays")]
    assert not registry.poll()


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "..", "a" * 64, "é", "a\n", "a b", "a%2fb"])
def test_a_cluster_name_is_a_dns_label(name: str) -> None:
    with pytest.raises(RegistryError, match="cluster name"):
        Cluster(name)


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
def test_every_dns_label_is_a_cluster_name(name: str) -> None:
    assert Cluster(name).name == name


def test_a_cluster_that_was_replaced_between_two_polls_went_and_came(registry: SqliteRegistry, path: Path) -> None:
    registry.add(PROD)
    registry.pin("prod", "uid-1")
    heard: list[tuple[Change, str | None]] = []
    registry.subscribe(lambda change, cluster: heard.append((change, cluster.uid)))
    other = SqliteRegistry(path)
    other.remove("prod")
    other.add(Cluster("prod", None, 2000.0))
    assert registry.poll()
    assert heard == [(Change.REMOVED, "uid-1"), (Change.ADDED, None)]
    other.remove("prod")
    other.add(Cluster("prod", "uid-2", 2000.0))
    assert registry.poll()
    assert heard[2:] == [(Change.UPDATED, "uid-2")]
    other.remove("prod")
    other.add(Cluster("prod", "uid-3", 2000.0))
    assert registry.poll()
    assert heard[3:] == [(Change.REMOVED, "uid-2"), (Change.ADDED, "uid-3")]
    other.remove("prod")
    other.add(Cluster("prod", "uid-3", 3000.0))
    other.close()
    assert registry.poll()
    assert heard[5:] == [(Change.REMOVED, "uid-3"), (Change.ADDED, "uid-3")]


def test_a_removal_that_could_not_be_read_is_read_at_the_next_poll(
    registry: SqliteRegistry, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(PROD)
    registry.add(Cluster("stays"))
    other = SqliteRegistry(path)
    other.remove("prod")
    other.close()

    def broken(*_: object, **__: object) -> object:
        raise sqlite3.OperationalError("unable to open database file")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.membership.rows.Cluster", broken)
        with pytest.raises(RegistryError, match="try again"):
            registry.poll()
    assert registry.poll()
    assert registry.get("prod") is None


def test_a_subscriber_that_fails_keeps_no_other_from_hearing(registry: SqliteRegistry) -> None:
    heard = []

    def failing(_: Change, cluster: Cluster) -> None:
        raise KeyError(cluster.name)

    registry.subscribe(failing)
    registry.subscribe(lambda _, cluster: heard.append(cluster.name))
    registry.add(PROD)
    assert heard == ["prod"]


def test_an_agent_that_attaches_again_writes_nothing_and_a_first_one_does_not_wait_long(path: Path) -> None:
    registry = SqliteRegistry(path, patience=0.05)
    registry.add(PROD)
    registry.add(Cluster("edge"))
    registry.pin("prod", "uid-1")
    writing = sqlite3.connect(path, isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert registry.pin("prod", "uid-1").uid == "uid-1"
    with pytest.raises(RegistryError, match="try again"):
        registry.pin("edge", "uid-2")
    with pytest.raises(RegistryError, match="try again"):
        registry.remove("prod")
    with pytest.raises(RegistryError, match="try again"):
        registry.add(Cluster("new"))
    assert time.monotonic() - began < 1
    writing.execute("ROLLBACK")
    writing.close()
    assert registry.pin("edge", "uid-2").uid == "uid-2"
    registry.close()


def test_what_others_put_on_a_cluster_stays_and_goes_with_it(registry: SqliteRegistry, path: Path) -> None:
    registry.add(PROD)
    registry.mark("prod", Mark.GATE, "example.com/Scanned")
    registry.mark("prod", Mark.GATE, "example.com/Scanned")
    registry.mark("prod", Mark.FINALIZER, "b")
    registry.mark("prod", Mark.FINALIZER, "a")
    registry.set_condition("prod", Condition("example.com/Scanned", "True", "Clean", "", 5.0))
    found = registry.get("prod")
    assert found is not None
    assert reopened(path) == (found,)
    assert (found.gates, found.finalizers) == (("example.com/Scanned",), ("a", "b"))
    assert registry.unmark("prod", Mark.FINALIZER, "b")
    assert not registry.unmark("prod", Mark.FINALIZER, "b")
    registry.remove("prod")
    registry.add(PROD)
    assert reopened(path) == (PROD,)


def test_what_was_written_late_for_a_cluster_that_went_is_not_the_next_ones(
    registry: SqliteRegistry, path: Path
) -> None:
    """The server, which has not polled yet, writes a condition for a name that the command has freed."""
    registry.add(PROD)
    command = SqliteRegistry(path)
    command.remove("prod")
    registry.set_conditions({"prod": [Condition("Available", "True", "AgentsReady")]})
    command.add(Cluster("prod", None, 9.0))
    command.close()
    assert reopened(path) == (Cluster("prod", None, 9.0),)


def test_marks_are_words_and_bounded_and_none_is_put_on_what_goes(registry: SqliteRegistry) -> None:
    registry.add(PROD)
    for bad in ("", "-a", "a b", "a" * 300, "a\n"):
        with pytest.raises(RegistryError, match="is no gate"):
            registry.mark("prod", Mark.GATE, bad)
    for number in range(MARKS):
        registry.mark("prod", Mark.GATE, f"g{number}")
    with pytest.raises(RegistryError, match="already"):
        registry.mark("prod", Mark.GATE, "one-more")
    registry.terminate("prod")
    with pytest.raises(RegistryError, match="being removed"):
        registry.mark("prod", Mark.FINALIZER, "late")


def test_a_name_is_given_to_another_cluster_by_who_knows_whose_it_is(registry: SqliteRegistry, path: Path) -> None:
    registry.add(PROD)
    registry.pin("prod", "uid-1", 10.0)
    heard: list[tuple[Change, str | None]] = []
    registry.subscribe(lambda change, cluster: heard.append((change, cluster.uid)))
    with pytest.raises(RegistryError, match="meanwhile"):
        registry.switch("prod", "uid-0", "uid-2", 20.0)
    assert registry.switch("prod", "uid-1", "uid-2", 20.0).accepted == 20.0
    assert heard == [(Change.REMOVED, "uid-1"), (Change.ADDED, "uid-2")]
    assert reopened(path)[0].uid == "uid-2"


def test_a_cluster_that_is_to_go_says_so_to_other_processes(registry: SqliteRegistry, path: Path) -> None:
    registry.add(PROD)
    other = SqliteRegistry(path)
    other.terminate("prod")
    assert other.terminate("prod").phase == TERMINATING
    other.close()
    registry.poll()
    found = registry.get("prod")
    assert found is not None
    assert found.phase == TERMINATING


def test_a_file_of_the_first_version_is_taken_over(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    old = sqlite3.connect(path)
    old.execute("CREATE TABLE cluster (name TEXT PRIMARY KEY, uid TEXT, created REAL NOT NULL, labels TEXT NOT NULL)")
    old.execute("INSERT INTO cluster VALUES ('prod', 'uid-1', 1000.0, '{}')")
    old.commit()
    old.close()
    path.chmod(0o600)
    assert reopened(path) == (Cluster("prod", "uid-1", 1000.0),)


def test_labels_denials_and_inventories_are_kept(registry: SqliteRegistry, path: Path) -> None:
    registry.add(PROD)
    told: list[Change] = []
    registry.subscribe(lambda change, _cluster: told.append(change))
    registry.relabel("prod", (("env", "test"),))
    registry.relabel("prod", (("env", "test"),))
    registry.deny("prod", True)
    registry.set_conditions({}, {"prod": Inventory("v1.36.0", "aws", 3, 3), "gone": Inventory("v1")})
    assert told == [Change.UPDATED] * 3
    (found,) = reopened(path)
    assert (found.labels, found.denied, found.inventory.version) == ((("env", "test"),), True, "v1.36.0")
    assert registry.deny("prod", False).inventory == found.inventory
    with pytest.raises(RegistryError, match="no cluster"):
        registry.relabel("no", ())
    with pytest.raises(RegistryError, match="no cluster"):
        registry.deny("no", True)
