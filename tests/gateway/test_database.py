"""One file, several stores: each sees what another process wrote, and a failure leaves nothing half-done."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.database import Database, RegistryError


class Words:
    """A store of words."""

    migrations: tuple[str, ...] = ("CREATE TABLE word (text TEXT PRIMARY KEY) STRICT;",)

    def __init__(self, name: str = "words") -> None:
        self.name = name
        self.words: list[str] = []
        self.fails = False

    def read(self, database: sqlite3.Connection) -> list[str]:
        if self.fails:
            raise sqlite3.OperationalError("disk I/O error")
        return [row[0] for row in database.execute("SELECT text FROM word ORDER BY text")]

    def take(self, content: Any) -> None:
        self.words = content


class Numbers(Words):
    migrations: tuple[str, ...] = (
        "CREATE TABLE number (text TEXT) STRICT;",
        "ALTER TABLE number ADD COLUMN note TEXT;",
    )

    def read(self, database: sqlite3.Connection) -> list[str]:
        return [row[0] for row in database.execute("SELECT text FROM number")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "kulvert.db"


def opened(path: Path, *stores: Words) -> Database:
    database = Database(path)
    for store in stores:
        database.open(store)
    return database


def say(database: Database, word: str) -> None:
    with database.writing(f"{word!r} was said already") as connection:
        connection.execute("INSERT INTO word VALUES (?)", (word,))


def fail_half_way(database: Database) -> None:
    with database.writing() as connection:
        connection.execute("INSERT INTO word VALUES ('half')")
        raise RuntimeError


def test_each_store_sees_what_another_process_wrote(path: Path) -> None:
    words, numbers = Words(), Numbers("numbers")
    ours, theirs = opened(path, words, numbers), opened(path, Words())
    assert not ours.poll()
    say(theirs, "hello")
    assert ours.poll()
    assert words.words == ["hello"]
    assert not ours.poll()
    ours.close()
    theirs.close()


def test_what_is_there_already_is_said_in_our_words(path: Path) -> None:
    database = opened(path, Words())
    say(database, "hello")
    with pytest.raises(RegistryError, match="'hello' was said already"):
        say(database, "hello")
    database.close()


def test_a_transaction_that_fails_leaves_nothing(path: Path) -> None:
    words = Words()
    database = opened(path, words)
    with pytest.raises(RuntimeError):
        fail_half_way(database)
    database.close()
    again = opened(path, words)
    assert words.words == []
    again.close()


def test_a_store_that_cannot_read_keeps_all_of_them_as_they_were_until_the_next_poll(path: Path) -> None:
    first, second = Words(), Words("second")
    second.migrations = ()
    ours, theirs = opened(path, first, second), opened(path, Words())
    say(theirs, "hello")
    second.fails = True
    with pytest.raises(RegistryError, match="try again"):
        ours.poll()
    assert first.words == []
    second.fails = False
    assert ours.poll()
    assert first.words == second.words == ["hello"]
    ours.close()
    theirs.close()


def test_each_store_has_a_version_of_its_own(path: Path) -> None:
    opened(path, Words()).close()
    opened(path, Words(), Numbers("numbers")).close()
    later = Numbers("numbers")
    later.migrations = later.migrations[:1]
    database = opened(path, Words())
    with pytest.raises(RegistryError, match=r"later Kulvert \(numbers 2\)"):
        database.open(later)
    database.close()


def test_a_file_that_others_may_read_is_refused(path: Path) -> None:
    opened(path).close()
    path.chmod(0o640)
    with pytest.raises(RegistryError, match="chmod 600"):
        Database(path)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"no database, but long enough to be taken for one" * 100)
    path.chmod(0o600)
    with pytest.raises(RegistryError, match="cannot be used"):
        Database(path)


ELSEWHERE = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], isolation_level=None) as database:
    database.execute("INSERT INTO word VALUES (?)", (sys.argv[2],))
    print(*(row[0] for row in database.execute("SELECT text FROM word ORDER BY text")))
database.close()
"""


def elsewhere(path: Path, word: str) -> list[str]:
    """Another process adds a word, closes the file, and says what it has seen."""
    command = [sys.executable, "-I", "-S", "-c", ELSEWHERE, str(path), word]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_two_connections_of_one_process_and_another_process_see_the_same(path: Path) -> None:
    words = Words()
    first = opened(path, words)
    second = opened(path, Words())
    assert elsewhere(path, "b") == ["b"]  # the last of its process to close, and not the last of all
    say(first, "a")
    assert elsewhere(path, "c") == ["a", "b", "c"]
    first._watched.poll()
    assert words.words == ["a", "b", "c"]
    first.close()
    second.close()
