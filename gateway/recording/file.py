"""One recording's file: its owner's alone, one for each session, and bounded."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_RESERVE: Final = 4096
"""Bytes beyond the limit that a last note may take."""


class RecordingFull(OSError):
    """The recording has reached its limit."""

    def __init__(self) -> None:
        super().__init__(0, "the recording has reached its size limit")


class RecordingFile:
    """A new file. :raises OSError: there is none to be had; that includes one that is there already."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor: int | None = os.open(path, flags, 0o600)

    def write(self, data: bytes, *, last: bool = False) -> None:
        """All of it. :raises OSError: not all of it could be written."""
        if self._descriptor is None:
            raise OSError(0, "the recording is closed")
        if self._size + len(data) > self._max_bytes + (_RESERVE if last else 0):
            raise RecordingFull
        while data:
            taken = os.write(self._descriptor, data)
            self._size += taken
            data = data[taken:]

    def close(self) -> None:
        """Nothing more is written. Harmless when closed."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def discard(self) -> None:
        """Close it, and leave nothing behind."""
        self.close()
        with suppress(OSError):
            self._path.unlink()


def private_directory(path: Path) -> None:
    """Makes it. One that is there is left as it is. :raises OSError: it cannot be made, or others may enter it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        raise PermissionError(errno.EPERM, "recordings need a directory that nobody else may enter: chmod 700 it", path)
