"""The agent's own bearer token. It is in no repr, no log and no error, and leaves the process only for the
API server.
"""

from __future__ import annotations

import os
from pathlib import Path

from tunnel.errors import TunnelError

CHECK_EVERY = 1.0
"""Seconds between looks at a token's file."""
MAX_TOKEN = 64 * 1024


class NoAccess(TunnelError):
    """There is no way to the API server, or none that this agent takes; the text says what to do."""


def file_state(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or rewritten. Raises OSError."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ino, found.st_size


def bearer(raw: bytes, where: str) -> bytes:
    """The Authorization value of a token as it was read. Raises NoAccess for what cannot be one: it goes
    into a header.
    """
    token = raw.strip()
    if not token or len(token) > MAX_TOKEN or not all(0x21 <= byte < 0x7F for byte in token):
        raise NoAccess(f"{where} does not hold a token")
    return b"Bearer " + token


class TokenFile:
    """A token in a file that somebody else rotates."""

    __slots__ = ("_checked", "_path", "_state", "_value")

    def __init__(self, path: Path) -> None:
        """Raises NoAccess where there is no token: an agent without one cannot start."""
        self._path = path
        self._checked = float("-inf")
        try:
            self._state = file_state(path)
            self._value = bearer(path.read_bytes(), str(path))
        except OSError as error:
            raise NoAccess(f"cannot read the token, {path}: {error.strerror}") from error

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r})"

    def authorization(self, now: float) -> bytes:
        """The header's value. `now` is a monotonic time in seconds."""
        if now - self._checked >= CHECK_EVERY:
            self._checked = now
            self._look()
        return self._value

    def _look(self) -> None:
        """A file that is gone, or half written, keeps the token that was: the API server decides how long
        it is good.
        """
        try:
            state = file_state(self._path)
            if state != self._state:
                self._value = bearer(self._path.read_bytes(), str(self._path))
                self._state = state
        except (OSError, NoAccess):
            return
