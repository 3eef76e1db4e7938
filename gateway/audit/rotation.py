"""Rotation of a log file by size: names, ages and compression as kube-apiserver's own log rotation has them.

    audit.log  →  audit-2026-11-20T14-45-30.123.log  →  audit-2026-11-20T14-45-30.123.log.gz

A backup is never overwritten, whatever the clock does, and one that seems to come from the future is not taken for old.
What cannot be rotated (a directory that cannot be written) goes on in the same file: too large a log is better than
none. Compression and clearing up run in a thread of their own, since they take seconds.
"""

from __future__ import annotations

import errno
import gzip
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)
_STAMP: Final = "%Y-%m-%dT%H-%M-%S"
_STAMPED: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)\.(\d{3})")
_AGAIN: Final = 60.0
"""Seconds until a rotation is tried again that failed."""
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class RotationRules:
    """`max_bytes` of a file, `backups` and `days` that are kept; 0 is without a bound."""

    max_bytes: int
    backups: int = 0
    days: int = 0
    compress: bool = False


class Rotation:
    """Moves one file away when it is due, and sees to what was moved away before."""

    def __init__(
        self, path: Path, rules: RotationRules, wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.rules = rules
        self._path = path
        self._wall = wall
        self._clock = clock
        self._retry_at = 0.0
        self._stopping = threading.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"rotation of {path.name}")

    def due(self, size: int, more: int) -> bool:
        """Whether a file of this size is to be moved away before `more` bytes are written."""
        most = self.rules.max_bytes
        return bool(most) and bool(size) and size + more > most and self._clock() >= self._retry_at

    def rotate(self, reopen: Callable[[], None]) -> None:
        """Gives the file another name, and has a new one opened. Where that fails all stays as it was, for a while."""
        moved: Path | None = None
        try:
            free = self._free_name()
            with suppress(FileNotFoundError):  # somebody else has moved it
                if not stat.S_ISREG(self._path.lstat().st_mode):
                    raise OSError(errno.EINVAL, "it is no regular file")
                os.rename(self._path, free)
                moved = free
            reopen()
        except OSError as error:
            self._retry_at = self._clock() + _AGAIN
            _log.error("the audit log cannot be rotated, and grows", extra={"error": error.strerror})
            if moved is not None:
                with suppress(OSError):
                    os.rename(moved, self._path)
        else:
            self._worker.submit(self.tidy)

    def tidy(self) -> None:
        """Compresses and removes old files. Runs in the thread; what fails is tried again with the next rotation."""
        try:
            for path in self.outdated():
                path.unlink(missing_ok=True)
            if self.rules.compress:
                for path in [path for _, path in self.backups() if path.suffix != ".gz"]:
                    self._compress(path)
        except OSError as error:
            _log.error("old audit logs cannot be cleared up", extra={"error": error.strerror})

    def backups(self) -> list[tuple[float, Path]]:
        """The files that were moved away, oldest first, with the times in their names."""
        found = []
        for path in self._path.parent.iterdir():
            name = path.name.removesuffix(".gz")
            if name.startswith(self._path.stem + "-") and name.endswith(self._path.suffix):
                moment = _moment(name[len(self._path.stem) + 1 : len(name) - len(self._path.suffix)])
                if moment is not None:
                    found.append((moment, path))
        return sorted(found)

    def outdated(self) -> list[Path]:
        """The backups that are too many or too old."""
        backups, rules = self.backups(), self.rules
        kept = set(backups[-rules.backups :] if rules.backups else backups)
        oldest = self._wall() - 86_400 * rules.days if rules.days else float("-inf")
        return [path for moment, path in backups if (moment, path) not in kept or moment < oldest]

    def close(self) -> None:
        """Ends the thread soon: half a compressed file is removed."""
        self._stopping.set()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _free_name(self) -> Path:
        """Behind all others, or a clock that was set back would have the newest file taken for the oldest."""
        newest = max((moment for moment, _ in self.backups()), default=0.0)
        moment = max(round(self._wall() * 1000), round(newest * 1000) + 1)
        stamp = datetime.fromtimestamp(moment // 1000, UTC).strftime(_STAMP)
        return self._path.with_name(f"{self._path.stem}-{stamp}.{moment % 1000:03d}{self._path.suffix}")

    def _compress(self, path: Path) -> None:
        done, half = path.with_name(path.name + ".gz"), path.with_name(path.name + ".gz.part")
        half.unlink(missing_ok=True)
        try:
            with path.open("rb") as plain, open(half, "xb", opener=_private) as file, gzip.open(file, "wb") as packed:
                while (piece := plain.read(_PIECE)) and not self._stopping.is_set():
                    packed.write(piece)
                whole = not piece
            if whole:
                os.rename(half, done)
                path.unlink()
        finally:
            with suppress(FileNotFoundError):
                half.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _moment(stamp: str) -> float | None:
    match = _STAMPED.fullmatch(stamp)
    if match is None:
        return None
    try:
        whole = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
    return whole.timestamp() + int(match[2]) / 1000
