"""The grants file on disk: read at start or not started at all, read again when it changes.

A new version that cannot be used changes nothing: the grants in force stay, and `problem` says why, for
logs, metrics and the health page. That goes for a removed file too: to take everybody's access away, write
an empty list of grants. A version that could not be read (too many open files, say) is tried again at each
look; one that was read and found wrong is not, until it changes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TypeAlias

from auth.grants import Decisions, Grants
from auth.grantsyaml import parse_grants
from auth.watched import Seen, Watched
from auth.yamlnodes import YamlError

_MAX_BYTES = 4 * 1024 * 1024


class GrantsFileError(Exception):
    """The file cannot be used; the text says where and why."""


Mark: TypeAlias = tuple[int, int, int] | None
Content: TypeAlias = Decisions | GrantsFileError
Looked: TypeAlias = Seen[Mark, Content] | GrantsFileError | None


class GrantsFile:
    """Grants from a file. Its caller decides when to look; that takes a while for a large file, so it can be
    done in a thread (`look`), with the result taken over where the grants are used (`take`).
    """

    def __init__(self, path: Path) -> None:
        """:raises GrantsFileError: there are no readable grants, so there is nothing to start with."""
        self._path = path
        self.problem: str | None = None
        self._wrong: str | None = None  # with the version that was read last
        known = _mark(path)
        self.decisions = Decisions(_parsed(_read(path), path))
        self._watched = Watched(lambda: _mark(path), self._contents, self._apply, known=known)

    def look(self) -> Looked:
        """Looks whether the file changed, by its time, size and inode, and reads it then. Touches nothing of ours."""
        try:
            return self._watched.look()
        except GrantsFileError as error:
            return error

    def take(self, looked: Looked) -> bool:
        """Takes over what `look` has found. True where new grants are in force now."""
        if isinstance(looked, GrantsFileError):
            self._complain(looked)
            return False
        self._watched.take(looked)
        if looked is None:
            self.problem = self._wrong
            return False
        return self._wrong is None

    def poll(self) -> bool:
        """Both at once: for where nothing waits."""
        return self.take(self.look())

    def _contents(self) -> Content:
        data = _read(self._path)
        try:
            return Decisions(_parsed(data, self._path))
        except GrantsFileError as error:
            return error  # reading it again would find the same

    def _apply(self, content: Content) -> None:
        if isinstance(content, GrantsFileError):
            self._complain(content)
        else:
            self.decisions, self.problem = content, None
        self._wrong = self.problem

    def _complain(self, error: GrantsFileError) -> None:
        self.problem = f"the grants in force are older than the file: {error}"


def _mark(path: Path) -> Mark:
    """None: there is no such file."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GrantsFileError(f"{path} cannot be looked at: {error.strerror}") from None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise GrantsFileError(f"{path} can be written by everybody: chmod o-w it")
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise GrantsFileError(f"{path} cannot be read: {error.strerror}") from None


def _parsed(data: bytes, path: Path) -> Grants:
    if len(data) > _MAX_BYTES:
        raise GrantsFileError(f"{path} is larger than {_MAX_BYTES} bytes")
    try:
        return parse_grants(data.decode(), str(path))
    except UnicodeDecodeError:
        raise GrantsFileError(f"{path} is not UTF-8") from None
    except YamlError as error:
        raise GrantsFileError(str(error)) from None
