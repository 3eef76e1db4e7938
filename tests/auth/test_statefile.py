"""Secret files: private, whole, and made once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from auth.statefile import StateFileError, create_private, read_private, write_private


def test_a_new_file_is_its_owners_alone_and_so_is_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secret"
    assert create_private(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_private(path) == b"one"


def test_what_is_there_is_not_created_over(tmp_path: Path) -> None:
    assert create_private(tmp_path / "secret", b"one")
    assert not create_private(tmp_path / "secret", b"two")
    assert read_private(tmp_path / "secret") == b"one"


def test_a_file_is_replaced_whole_and_no_draft_stays(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for content in (b"one", b"two"):
        write_private(path, content)
        assert read_private(path) == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    write_private(path, b"one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("auth.statefile.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"two")
    assert read_private(path) == b"one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_secret_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    write_private(path, b"one")
    path.chmod(mode)
    with pytest.raises(StateFileError, match="chmod 600"):
        read_private(path)


def test_no_file_is_no_content(tmp_path: Path) -> None:
    assert read_private(tmp_path / "nothing") is None
