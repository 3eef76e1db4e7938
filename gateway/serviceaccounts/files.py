"""Tokens of managed service accounts in files: a directory for each holder, a file for each token.

Whoever may read a holder's directory has the token, so each is the server's own (0700, files 0600) until its operator
opens it for that holder. A holder that may write there gains nothing: nothing is followed, and nothing outside touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from gateway.serviceaccounts.store import Wanted

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ProjectionError(Exception):
    """A token cannot go where it is wanted; the text says why, and holds no secret."""


class Projection(Protocol):
    """Where tokens go for their holders; `issued` tells one token from the next: epoch seconds, and only whole ones
    count. Every method may raise OSError and ProjectionError.
    """

    async def write(self, wanted: Wanted, token: str, issued: float) -> None:
        """Replaces the token at once and as a whole."""
        ...

    async def remove(self, wanted: Wanted) -> None:
        """Takes it away. Harmless where there is none."""
        ...

    def present(self, wanted: Wanted, issued: float) -> bool:
        """Whether that one is there, as far as one knows without asking anybody."""
        ...


class FileProjection:
    """Implements `Projection` below a directory. A file's time is that of its token's issue: where another replica has
    led meanwhile, the file that was left here is known for an older one.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, wanted: Wanted) -> Path:
        """Where a token is."""
        return self._root / _directory(wanted.holder) / wanted.file

    async def write(self, wanted: Wanted, token: str, issued: float) -> None:
        """See `Projection`."""
        if not wanted.file:
            raise ProjectionError("its token is to go into a Secret, and this server puts tokens into files alone")
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(self._root / _directory(wanted.holder), 0o700)
        with self._opened(wanted) as directory:
            new = f".{wanted.file}.new"
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=directory)
            try:
                with os.fdopen(os.open(new, _NEW, 0o600, dir_fd=directory), "w") as file:
                    file.write(token)
                    file.flush()
                    _mark(file.fileno(), int(issued))
                    os.fsync(file.fileno())
                os.replace(new, wanted.file, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with suppress(OSError):  # a token that nobody knows of is left nowhere
                    os.unlink(new, dir_fd=directory)
                raise

    async def remove(self, wanted: Wanted) -> None:
        """See `Projection`. A directory that is empty then goes too."""
        with suppress(FileNotFoundError):
            with self._opened(wanted) as directory:
                for name in (wanted.file, f".{wanted.file}.new"):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=directory)
            with suppress(OSError):
                os.rmdir(self._root / _directory(wanted.holder))

    def present(self, wanted: Wanted, issued: float) -> bool:
        """See `Projection`."""
        try:
            with self._opened(wanted) as directory:
                found = os.stat(wanted.file, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return int(found.st_mtime) == int(issued)

    @contextmanager
    def _opened(self, wanted: Wanted) -> Iterator[int]:
        directory = os.open(self._root / _directory(wanted.holder), _DIRECTORY)
        try:
            yield directory
        finally:
            os.close(directory)


def _mark(file: int, issued: int) -> None:
    """:raises ProjectionError: its time is not kept, so that it would be made anew at every look."""
    os.utime(file, (issued, issued))
    if int(os.fstat(file).st_mtime) != issued:
        raise ProjectionError("its file system keeps no file's time: choose another serviceAccounts.directory")


def _directory(holder: str) -> str:
    """One name for each holder, and never another's: `quote` leaves no slash, and dots alone name no holder here."""
    return "holder-" + quote(holder, safe="@")
