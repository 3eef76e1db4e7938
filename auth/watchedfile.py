"""A small configuration file: read at start or not started at all, read again when it changes.

A new version that cannot be used changes nothing: what is in force stays, and `problem` says why, for logs, metrics and
the health page. That goes for a removed file too. A version that could not be read (too many open files, say) is tried
again at each look; one that was read and found wrong is not, until it changes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from auth.watched import Seen, Watched
from auth.yamlnodes import YamlError

Content = TypeVar("Content")
Mark: TypeAlias = tuple[int, int, int] | None


class FileError(Exception):
    """The file cannot be used; the text says where and why."""


class WatchedFile(Generic[Content]):
    """`parse` takes text and raises YamlError. The caller decides when to look; that takes a while for a large file, so
    it can be done in a thread (`look`), with the result taken over where it is used (`take`).
    """

    def __init__(self, path: Path, parse: Callable[[str], Content], what: str, most: int) -> None:
        """`what` is in force, for `problem`; `most` bounds the file, in bytes.

        :raises FileError: there is nothing readable, so there is nothing to start with.
        """
        self._path = path
        self._parse = parse
        self._what = what
        self._most = most
        self.problem: str | None = None
        self._wrong: str | None = None  # with the version that was read last
        known = self._mark()
        self.content = self._parsed(self._read())
        self._watched: Watched[Mark, Content | FileError] = Watched(
            self._mark, self._contents, self._apply, known=known
        )

    def look(self) -> Seen[Mark, Content | FileError] | FileError | None:
        """Looks whether the file changed, by its time, size and inode, and reads it then. Touches nothing of ours."""
        try:
            return self._watched.look()
        except FileError as error:
            return error

    def take(self, looked: Seen[Mark, Content | FileError] | FileError | None) -> bool:
        """Takes over what `look` has found. True where something new is in force now."""
        if isinstance(looked, FileError):
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

    def _contents(self) -> Content | FileError:
        data = self._read()
        try:
            return self._parsed(data)
        except FileError as error:
            return error  # reading it again would find the same

    def _apply(self, content: Content | FileError) -> None:
        if isinstance(content, FileError):
            self._complain(content)
        else:
            self.content, self.problem = content, None
        self._wrong = self.problem

    def _complain(self, error: FileError) -> None:
        self.problem = f"{self._what} in force are older than the file: {error}"

    def _mark(self) -> Mark:
        """None: there is no such file."""
        try:
            seen = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileError(f"{self._path} cannot be looked at: {error.strerror}") from None
        return seen.st_mtime_ns, seen.st_size, seen.st_ino

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                    raise FileError(f"{self._path} can be written by everybody: chmod o-w it")
                return file.read(self._most + 1)
        except OSError as error:
            raise FileError(f"{self._path} cannot be read: {error.strerror}") from None

    def _parsed(self, data: bytes) -> Content:
        if len(data) > self._most:
            raise FileError(f"{self._path} is larger than {self._most} bytes")
        try:
            return self._parse(data.decode())
        except UnicodeDecodeError:
            raise FileError(f"{self._path} is not UTF-8") from None
        except YamlError as error:
            raise FileError(str(error)) from None
