"""Grants in SQLite: what was changed counts at once and elsewhere at the next poll, and nobody's change is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from auth.grants.grant import Grant, Maker
from gateway.database import Database, RegistryError
from gateway.granting.store import HISTORY, MOST_BYTES, GrantConflict, GrantStore

NOW = 1_000.0
OLGA = Maker("olga", ("owners",), "oidc")


def grant(name: str, user: str = "ada", priority: int = 0, maker: Maker | None = None) -> Grant:
    return Grant(name, frozenset({user}), clusters=("*",), priority=priority, maker=maker)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = Database(path)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> GrantStore:
    return GrantStore(database)


def test_a_grant_is_kept_with_its_maker_its_labels_and_who_wrote_it(store: GrantStore, path: Path) -> None:
    store.create(grant("b", maker=OLGA), (("team", "a"),), "olga", NOW)
    store.create(grant("a", priority=3), (), "root", NOW + 1)
    store.replace(1, grant("b", "bob", maker=OLGA), (), "otto", NOW + 2)
    again = Database(path)
    read = GrantStore(again)
    assert read.list() == store.list()
    found = read.get("b")
    assert found is not None
    assert (found.created_by, found.created, found.updated_by, found.updated) == ("olga", NOW, "otto", NOW + 2)
    assert (found.grant, found.labels, found.maker, found.problem) == (grant("b", "bob", maker=OLGA), (), OLGA, "")
    assert read.grants() == (grant("b", "bob", maker=OLGA), grant("a", priority=3))
    again.close()


def test_a_name_is_taken_once(store: GrantStore) -> None:
    store.create(grant("a"), (), "root", NOW)
    with pytest.raises(GrantConflict, match="already"):
        store.create(grant("a", "eve"), (), "eve", NOW)
    assert store.grants() == (grant("a"),)


def test_who_changes_an_older_state_is_told_so(store: GrantStore) -> None:
    first = store.create(grant("a"), (), "root", NOW)
    second = store.replace(first.version, grant("a", "bob"), (), "root", NOW)
    for change in (
        lambda: store.replace(first.version, grant("a", "eve"), (), "eve", NOW),
        lambda: store.delete("a", first.version, "eve", NOW),
    ):
        with pytest.raises(GrantConflict, match="changed meanwhile"):
            change()
    assert store.grants() == (grant("a", "bob"),)
    store.delete("a", second.version, "root", NOW)
    for change in (
        lambda: store.replace(second.version, grant("a"), (), "root", NOW),
        lambda: store.delete("a", second.version, "root", NOW),
    ):
        with pytest.raises(GrantConflict, match="there is no grant"):
            change()


def test_a_name_that_was_deleted_and_made_again_has_no_old_version(store: GrantStore) -> None:
    first = store.create(grant("a"), (), "root", NOW)
    store.delete("a", first.version, "root", NOW)
    again = store.create(grant("a", "bob"), (), "root", NOW)
    assert again.version > first.version + 1
    with pytest.raises(GrantConflict):
        store.replace(first.version, grant("a", "eve"), (), "eve", NOW)


def test_of_two_processes_one_wins_and_the_other_hears_of_it(store: GrantStore, database: Database, path: Path) -> None:
    first = store.create(grant("a"), (), "root", NOW)
    other_database = Database(path)
    other = GrantStore(other_database)
    told: list[int] = []
    end = store.subscribe(lambda: told.append(1))
    other.replace(first.version, grant("a", "bob"), (), "other", NOW)
    with pytest.raises(GrantConflict):
        store.replace(first.version, grant("a", "eve"), (), "root", NOW)
    assert database.poll()
    assert (store.grants(), told) == ((grant("a", "bob"),), [1])
    store.delete("a", first.version + 1, "root", NOW)
    assert told == [1, 1]
    end()
    store.create(grant("b"), (), "root", NOW)
    assert told == [1, 1]
    other_database.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("spec", "{"),
        ("spec", "[]"),
        ("spec", '{"subjects": [{"kind": "User", "name": "x"}], "clusters": ["*"], "later": 1}'),
        ("labels", "[]"),
        ("maker", "{}"),
        ("maker", "[]"),
        ("maker", '{"user": "x", "groups": null, "source": "y"}'),
    ],
)
def test_a_row_that_cannot_be_read_is_not_in_force_and_is_named(path: Path, column: str, value: str) -> None:
    database = Database(path)
    store = GrantStore(database)
    store.create(grant("good"), (), "root", NOW)
    store.create(grant("bad", maker=OLGA), (), "root", NOW)
    database.close()
    raw = sqlite3.connect(path)
    raw.execute(f"UPDATE stored_grant SET {column} = ? WHERE name = 'bad'", (value,))  # noqa: S608 -- from the table above
    raw.commit()
    raw.close()
    database = Database(path)
    store = GrantStore(database)
    assert store.grants() == (grant("good"),)
    assert "grant 'bad' is not in force: it cannot be read" in (store.problem or "")
    bad = store.get("bad")
    assert bad is not None
    store.delete("bad", bad.version, "root", NOW)
    assert store.problem is None
    database.close()


def test_every_change_is_remembered_in_the_same_transaction(store: GrantStore) -> None:
    made = store.create(grant("a"), (), "root", NOW)
    with pytest.raises(GrantConflict):
        store.create(grant("a"), (), "eve", NOW)
    changed = store.replace(made.version, grant("a", "bob"), (), "otto", NOW + 1)
    store.delete("a", changed.version, "root", NOW + 2)
    store.create(grant("b"), (), "root", NOW + 3)
    assert [(c.at, c.by, c.change) for c in store.changes("a")] == [
        (NOW + 2, "root", "delete"),
        (NOW + 1, "otto", "update"),
        (NOW, "root", "create"),
    ]
    assert '"bob"' in store.changes("a")[1].spec
    assert len(store.changes()) == 4


def test_what_is_remembered_has_an_end(store: GrantStore, database: Database) -> None:
    with database.writing() as connection:
        connection.execute(
            "INSERT INTO grant_change (version, at, by, name, change, spec) VALUES (?, 0, '', 'x', '', '')", (HISTORY,)
        )
    store.create(grant("a"), (), "root", NOW)
    store.create(grant("b"), (), "root", NOW)
    assert len(store.changes(most=HISTORY)) == 3
    with database.writing() as connection:
        connection.execute("UPDATE sqlite_sequence SET seq = ?", (HISTORY * 2,))
    store.create(grant("c"), (), "root", NOW)
    assert [one.name for one in store.changes()] == ["c", "b"]


def test_a_grant_and_a_store_are_bounded(store: GrantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Grant("a", frozenset(f"user-{number:020}" for number in range(MOST_BYTES // 30)), clusters=("*",))
    with pytest.raises(RegistryError, match="use groups and patterns"):
        store.create(large, (), "root", NOW)
    monkeypatch.setattr("gateway.granting.store.MOST", 1)
    store.create(grant("a"), (), "root", NOW)
    with pytest.raises(RegistryError, match="which is the most"):
        store.create(grant("b"), (), "root", NOW)
