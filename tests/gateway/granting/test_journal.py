"""What the command does to grants beside a running server is in the audit log, and what the API does is not twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from auth.grants.grant import Grant
from gateway.database import Database
from gateway.granting.journal import GrantJournal
from gateway.granting.store import ON_THE_MACHINE, GrantStore

NOW = 1_000.0
ROOT = "root" + ON_THE_MACHINE


def grant(name: str, user: str = "ada") -> Grant:
    return Grant(name, frozenset({user}), clusters=("*",))


class Log:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def record(self, line: bytes) -> None:
        self.lines.append(line)

    @property
    def told(self) -> list[tuple[str, str, str]]:
        events: list[dict[str, Any]] = [orjson.loads(line) for line in self.lines]
        return [(event["user"]["username"], event["verb"], event["objectRef"]["name"]) for event in events]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def server(path: Path) -> Iterator[Database]:
    opened = Database(path)
    yield opened
    opened.close()


@pytest.fixture
def command(path: Path) -> Iterator[GrantStore]:
    """Another process."""
    opened = Database(path)
    yield GrantStore(opened)
    opened.close()


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def store(server: Database, log: Log) -> GrantStore:
    store = GrantStore(server)
    store.subscribe(GrantJournal(store, log, lambda: "id-1", lambda: NOW).look)
    return store


def test_what_the_command_does_is_recorded_at_the_next_poll(
    server: Database, store: GrantStore, command: GrantStore, log: Log
) -> None:
    made = command.create(grant("dev"), (), ROOT, NOW)
    made = command.replace(made.version, grant("dev", "bob"), (), ROOT, NOW)
    assert server.poll()
    assert log.told == [(ROOT, "create", "dev"), (ROOT, "update", "dev")]
    command.delete("dev", made.version, ROOT, NOW)
    assert server.poll()
    assert log.told[2:] == [(ROOT, "delete", "dev")]
    event = orjson.loads(log.lines[-1])
    assert event["annotations"]["kulvert.dev/change"] == "delete"
    assert event["annotations"]["kulvert.dev/decision"] == "allow"
    assert not store.list()


def test_what_came_and_went_between_two_polls_is_recorded_with_the_next_change(
    server: Database, command: GrantStore, store: GrantStore, log: Log
) -> None:
    brief = command.create(grant("brief"), (), ROOT, NOW)
    command.delete("brief", brief.version, ROOT, NOW)
    command.create(grant("dev"), (), ROOT, NOW)
    server.poll()
    assert [name for _, _, name in log.told] == ["brief", "brief", "dev"]
    assert store.get("dev") is not None


def test_what_the_api_does_is_in_its_requests_own_record(store: GrantStore, log: Log) -> None:
    store.create(grant("dev"), (), "olga", NOW)
    assert not log.lines


def test_the_past_is_not_recorded_again_at_a_start(server: Database, command: GrantStore, log: Log) -> None:
    command.create(grant("old"), (), ROOT, NOW)
    store = GrantStore(server)
    journal = GrantJournal(store, log, lambda: "id-1", lambda: NOW)
    journal.look()
    assert not log.lines
