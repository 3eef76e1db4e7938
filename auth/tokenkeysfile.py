"""The signing keys in their file (0600), which several processes read, and change one at a time.

A change is read, made and written under a lock, so that two servers which find a rotation due make one new key and not
two. Readers need no lock: the file is replaced whole.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from auth.statefile import StateFileError, read_private, write_private
from auth.tokenkeys import KeyRing, KeyRingError, SigningKey, private_key, read_ring

_STEP = 0.02


class KeysBusy(StateFileError):
    """Another process is changing the keys."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """`path`, and the file of the single key that was in its place once: that key signs on, and the file goes."""

    path: Path
    single: Path

    def mark(self) -> tuple[int, int, int] | None:
        """What differs when the file has changed."""
        try:
            seen = self.path.stat()
        except FileNotFoundError:
            return None
        return (seen.st_mtime_ns, seen.st_size, seen.st_ino)

    def load(self, issuer: str, now: float, patience: float = 5.0) -> KeyRing:
        """The keys, made at the first use.

        :raises StateFileError: the file is open to others or damaged, or, as KeysBusy, being changed for too long.
        """
        return self._read() or self.change(lambda ring: ring, issuer, now, patience)

    def change(self, make: Callable[[KeyRing], KeyRing], issuer: str, now: float, patience: float = 5.0) -> KeyRing:
        """Puts in place what `make` makes of the keys that are there now. `patience` is for other processes, seconds.

        :raises StateFileError: as in `load`.
        """
        with _locked(self.path.with_suffix(".lock"), patience):
            there = self._read()
            made = make(there or self._first(issuer, now))
            if made != there:
                write_private(self.path, made.text())
            self.single.unlink(missing_ok=True)
        return made

    def _read(self) -> KeyRing | None:
        text = read_private(self.path)
        try:
            return None if text is None else read_ring(text)
        except KeyRingError as error:
            raise StateFileError(f"{self.path} {error}: move it away to make new ones; old tokens end then") from None

    def _first(self, issuer: str, now: float) -> KeyRing:
        pem = read_private(self.single)
        if pem is None:
            return KeyRing(issuer, (SigningKey.new(now, now),))
        since = min(self.single.stat().st_mtime, now)
        try:
            return KeyRing(issuer, (SigningKey(private_key(pem), since, since),))
        except (ValueError, TypeError):
            raise StateFileError(f"{self.single} is no signing key: move it away to make a new one") from None


@contextmanager
def _locked(path: Path, patience: float) -> Iterator[None]:
    """The lock of a process that has died is gone with it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, path, time.monotonic() + patience)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise KeysBusy(f"another process is changing what {path} guards: try again") from None
            time.sleep(_STEP)
