"""Small secret files of the state directory: readable by their owner alone, and never seen half-written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class StateFileError(Exception):
    """A secret file cannot be trusted as it is; the text says what to do."""


def read_private(path: Path) -> bytes | None:
    """The file's content, or None where there is none.

    :raises StateFileError: others may read or write it, so it is no secret any more.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & _OTHERS:
                raise StateFileError(f"{path} is open to others than its owner: chmod 600 it, or make a new one")
            return file.read()
    except FileNotFoundError:
        return None


def create_private(path: Path, data: bytes) -> bool:
    """Writes a new file whole or not at all. False where one is there already (another process was first)."""
    return _placed(path, data, replace=False)


def write_private(path: Path, data: bytes) -> None:
    """Writes or replaces a file whole or not at all."""
    _placed(path, data, replace=True)


def _placed(path: Path, data: bytes, *, replace: bool) -> bool:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)  # left by a process of this number that died here
    try:
        _write_synced(draft, data)
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)  # unlike a rename, it fails where the name is taken
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    _sync_directory(path.parent)
    return True


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
