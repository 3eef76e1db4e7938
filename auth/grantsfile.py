"""The grants file on disk: read at start or not started at all, read again when it changes.

A new version that cannot be read changes nothing: the grants in force stay, and `problem` says why, for
logs, metrics and the health page. That goes for a removed file too: to take everybody's access away, write
an empty list of grants.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TypeAlias

from auth.grants import Decisions, Grants
from auth.grantsyaml import parse_grants
from auth.yamlnodes import YamlError

_Mark: TypeAlias = tuple[int, int, int] | None
_MAX_BYTES = 4 * 1024 * 1024


class GrantsFileError(Exception):
    """The file cannot be used; the text says where and why."""


class GrantsFile:
    """Grants from a file. Its caller decides when to `poll`; reading a large file takes a while, so not on
    the event loop.
    """

    def __init__(self, path: Path) -> None:
        """:raises GrantsFileError: there are no readable grants, so there is nothing to start with."""
        self._path = path
        self._mark: _Mark = _mark(path)
        self.problem: str | None = None
        self.decisions = Decisions(_read(path))

    def poll(self) -> bool:
        """Looks whether the file changed, by its time, size and inode. True where new grants are in force now."""
        mark = _mark(self._path)
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            grants = _read(self._path)
        except GrantsFileError as error:
            self.problem = f"the grants in force are older than the file: {error}"
            return False
        self.decisions = Decisions(grants)
        self.problem = None
        return True


def _mark(path: Path) -> _Mark:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def _read(path: Path) -> Grants:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise GrantsFileError(f"{path} can be written by everybody: chmod o-w it")
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise GrantsFileError(f"{path} is larger than {_MAX_BYTES} bytes")
        return parse_grants(data.decode(), str(path))
    except OSError as error:
        raise GrantsFileError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise GrantsFileError(f"{path} is not UTF-8") from None
    except YamlError as error:
        raise GrantsFileError(str(error)) from None
