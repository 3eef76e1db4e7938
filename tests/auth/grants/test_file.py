"""The grants file while it changes: what is in force, and what is said about what is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from auth.grants.file import GrantsFile
from auth.grants.grants import Grants
from auth.identity import Identity
from auth.watchedfile import FileError

JANE = Identity("jane", (), "", (), "test", "id", 9e9)
HEAD = "apiVersion: kulvert.dev/v1alpha1\nkind: Grants\n"
FOR_JANE = HEAD + "grants: [{name: r, subjects: [{kind: User, name: jane}], clusters: ['*']}]\n"
FOR_NOBODY = HEAD + "grants: []\n"


def allows(file: GrantsFile) -> bool:
    return Grants(file.grants).decide(JANE, "c", 0.0).allowed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "grants.yaml"
    file.write_text(FOR_JANE)
    return file


def rewritten(path: Path, text: str) -> None:
    """As an editor or a ConfigMap mount does it: a new file in the old one's place."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    os.replace(draft, path)


def test_without_readable_grants_there_is_no_start(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        GrantsFile(tmp_path / "nothing.yaml")
    for text, reason in (("", "empty"), ("grants: []", "lacks"), ("x" * (4 * 2**20 + 1), "larger")):
        path.write_text(text)
        with pytest.raises(FileError, match=reason):
            GrantsFile(path)
    path.write_bytes(b"\xff")
    with pytest.raises(FileError, match="UTF-8"):
        GrantsFile(path)


def test_a_file_that_everybody_can_write_grants_nothing(path: Path) -> None:
    path.chmod(0o666)
    with pytest.raises(FileError, match="chmod o-w"):
        GrantsFile(path)


def test_a_changed_file_takes_effect_at_the_next_poll(path: Path) -> None:
    file = GrantsFile(path)
    assert allows(file)
    assert not file.poll()
    rewritten(path, FOR_NOBODY)
    assert file.poll()
    assert not allows(file)
    assert not file.poll()


def test_a_change_of_equal_size_within_one_tick_is_seen_by_its_inode(path: Path) -> None:
    file = GrantsFile(path)
    before = path.stat()
    rewritten(path, FOR_JANE.replace("jane", "evan"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert file.poll()


@pytest.mark.parametrize("damage", ["broken", "removed", "writable"])
def test_a_broken_new_file_keeps_the_old_grants_and_says_so(path: Path, damage: str) -> None:
    file = GrantsFile(path)
    if damage == "broken":
        rewritten(path, FOR_NOBODY + "typo: x\n")
    elif damage == "removed":
        path.unlink()
    else:
        rewritten(path, FOR_NOBODY)
        path.chmod(0o666)
    assert not file.poll()
    assert allows(file)
    assert file.problem is not None
    assert str(path) in file.problem
    rewritten(path, FOR_NOBODY)
    assert file.poll()
    assert file.problem is None
    assert not allows(file)


def test_a_change_that_could_not_be_read_is_read_at_the_next_poll(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files, for a moment: a revocation must not be lost by it."""
    file, opened = GrantsFile(path), Path.open
    rewritten(path, FOR_NOBODY)

    def exhausted(*_: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "open", exhausted)
    assert not file.poll()
    assert file.problem is not None
    assert "Too many open files" in file.problem
    monkeypatch.setattr(Path, "open", opened)
    assert file.poll()
    assert file.problem is None
    assert not allows(file)


def test_what_may_be_read_after_a_chmod_is_read(path: Path) -> None:
    """chmod changes neither time nor size nor inode."""
    file = GrantsFile(path)
    rewritten(path, FOR_NOBODY)
    path.chmod(0o666)
    assert not file.poll()
    path.chmod(0o600)
    assert file.poll()
    assert not allows(file)


def test_a_broken_version_is_read_once_and_stays_a_problem(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = GrantsFile(path)
    rewritten(path, "broken: x\n")
    assert not file.poll()
    monkeypatch.setattr(Path, "open", None)
    assert not file.poll()
    assert file.problem is not None


def test_looking_changes_nothing_until_it_is_taken(path: Path) -> None:
    """`look` runs in a thread, beside requests."""
    file = GrantsFile(path)
    rewritten(path, FOR_NOBODY)
    looked = file.look()
    assert allows(file)
    assert file.take(looked)
    assert not allows(file)
