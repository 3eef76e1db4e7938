"""Secret files: whole or not there, and nobody else's to read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.privatefile import MAX_FILE, own_directory, read_private, write_private
from agent.settings import ConfigError


def test_what_is_written_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    assert read_private(tmp_path / "a") is None
    write_private(tmp_path / "a", b"one")
    write_private(tmp_path / "a", b"two")
    assert read_private(tmp_path / "a") == b"two"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(tmp_path / "a", b"one")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(tmp_path / "a", b"two")
    monkeypatch.undo()
    assert read_private(tmp_path / "a") == b"one"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_draft_that_was_left_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / f".a.{os.getpid()}.new").write_bytes(b"half")
    write_private(tmp_path / "a", b"one")
    assert read_private(tmp_path / "a") == b"one"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o610])
def test_a_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    write_private(tmp_path / "a", b"one")
    (tmp_path / "a").chmod(mode)
    with pytest.raises(ConfigError, match="is open to others than the agent: remove it"):
        read_private(tmp_path / "a")


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"one")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c").mkdir(0o700)
    write_private(tmp_path / "d", b"x" * (MAX_FILE + 1))
    for name in "bcd":
        with pytest.raises(ConfigError, match=str(tmp_path / name)):
            read_private(tmp_path / name)


def test_the_directory_is_made_for_the_agent_alone(tmp_path: Path) -> None:
    own_directory(tmp_path / "state" / "agent")
    assert stat.S_IMODE((tmp_path / "state" / "agent").stat().st_mode) == 0o700
    own_directory(tmp_path / "state" / "agent")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with pytest.raises(ConfigError, match="name a directory beneath it"):
        own_directory(tmp_path / "state")
    own_directory(tmp_path / "state" / "agent")


def test_a_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(ConfigError, match="stateDir"):
            own_directory(path)
