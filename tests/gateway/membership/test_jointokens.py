"""The join tokens of a single server: kept, counted, and gone when they are revoked or expire."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from auth.jointoken import StoredJoinToken
from gateway.database import RegistryError
from gateway.membership.jointokens import JoinTokens
from gateway.membership.registry import SqliteRegistry
from gateway.membership.stores import Stores

TOKEN = StoredJoinToken("id1", b"planted-key", "prod", 2000.0, 10.0, 2, True)
FLEET = StoredJoinToken("id2", b"k", "", 1500.0, labels=(("env", "edge"),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clusters.db"


@pytest.fixture
def stores(path: Path) -> Iterator[Stores]:
    made = Stores.open(path)
    yield made
    made.close()


def test_tokens_are_kept_found_and_removed_once(stores: Stores, path: Path) -> None:
    tokens = stores.tokens
    tokens.add(TOKEN)
    tokens.add(FLEET)
    with pytest.raises(RegistryError, match="already") as refused:
        tokens.add(TOKEN)
    assert "planted" not in str(refused.value)
    assert tokens.get("id1") == TOKEN
    assert tokens.get("id1' OR '1'='1") is None
    assert tokens.list() == (FLEET, TOKEN)
    again = Stores.open(path)
    assert again.tokens.list() == (FLEET, TOKEN)
    again.close()
    assert tokens.remove("id1")
    assert not tokens.remove("id1")


def test_expired_tokens_are_dropped(stores: Stores) -> None:
    stores.tokens.add(TOKEN)
    stores.tokens.add(FLEET)
    assert stores.tokens.drop_expired(1500.0) == 1
    assert stores.tokens.list() == (TOKEN,)


def test_a_use_is_a_key_and_the_same_key_may_ask_again(stores: Stores) -> None:
    tokens = stores.tokens
    tokens.add(TOKEN)
    for key in ("a", "a", "b", "a"):
        assert tokens.usable(TOKEN, key)
        tokens.use(TOKEN, key)
    assert not tokens.usable(TOKEN, "c")
    with pytest.raises(RegistryError, match="used up"):
        tokens.use(TOKEN, "c")
    assert tokens.keys("id1") == {"a", "b"}


def test_of_two_processes_one_gets_the_last_use(stores: Stores, path: Path) -> None:
    stores.tokens.add(TOKEN)
    other = Stores.open(path)
    other.tokens.use(TOKEN, "a")
    other.tokens.use(TOKEN, "b")
    assert stores.tokens.usable(TOKEN, "c")
    with pytest.raises(RegistryError, match="used up"):
        stores.tokens.use(TOKEN, "c")
    other.tokens.remove("id1")
    other.close()
    with pytest.raises(RegistryError, match="revoked"):
        stores.tokens.use(TOKEN, "d")


def test_tokens_of_another_process_come_and_go_with_a_poll(stores: Stores, path: Path) -> None:
    other = Stores.open(path)
    other.tokens.add(TOKEN)
    stores.registry.poll()
    assert stores.tokens.get("id1") == TOKEN
    other.tokens.remove("id1")
    other.close()
    stores.registry.poll()
    assert stores.tokens.get("id1") is None


def test_tokens_of_the_first_version_are_taken_over(path: Path) -> None:
    old = sqlite3.connect(path)
    old.execute(
        "CREATE TABLE join_token (id TEXT PRIMARY KEY, key BLOB NOT NULL, cluster TEXT NOT NULL, expires REAL NOT NULL)"
    )
    old.execute("INSERT INTO join_token VALUES ('id', x'00', 'prod', 9.0)")
    old.commit()
    old.close()
    path.chmod(0o600)
    registry = SqliteRegistry(path)
    assert JoinTokens(registry.database).list() == (StoredJoinToken("id", b"\0", "prod", 9.0),)
    registry.close()
