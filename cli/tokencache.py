"""What people's programs keep of their logins between two calls: one private file for each, whole or not there.

It is on the way of every call of kubectl, so nothing heavy is imported. A file that others could have read, or written,
is no secret and no authority any more: it is refused, not repaired. A file that makes no sense is an empty one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auth.statefile import write_private
from cli.failures import Failed

VARIABLE = "KULVERT_CACHE_DIR"
LOGIN, CERTIFICATE, TOKEN = "login", "certificate", "token"
"""What is kept: a login at the issuer, and what the gateway gave for it."""
MOST = 1 << 20
PATIENCE = 330.0
"""Seconds that one call waits for another that is at the same login: a person may be signing in there."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_UNFIT = re.compile(r"[^A-Za-z0-9.-]+")
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoginKey:
    """Which login: of which gateway, at which issuer, as which client. `profile` tells several people apart."""

    server: str
    issuer: str
    client_id: str
    profile: str = ""

    @property
    def stem(self) -> str:
        """The beginning of its files' names: for people the host, for programs a digest of all four."""
        parts = json.dumps([self.server, self.issuer, self.client_id, self.profile])
        host = _UNFIT.sub("-", self.server.partition("://")[2])[:64]
        return f"{host}-{hashlib.sha256(parts.encode()).hexdigest()[:24]}"

    def document(self) -> Document:
        """As it stands in the file, so that logins can be listed, and a file under a wrong name is noticed."""
        return {"server": self.server, "issuer": self.issuer, "clientId": self.client_id, "profile": self.profile}


def directory(env: Mapping[str, str]) -> Path:
    """`$KULVERT_CACHE_DIR`, else `~/.kube/cache/kulvert`."""
    named = env.get(VARIABLE)
    return Path(named) if named else Path.home() / ".kube" / "cache" / "kulvert"


class TokenCache:
    """The files of one directory. `warn` is told of a file that is taken for empty."""

    def __init__(self, directory: Path, warn: Callable[[str], None]) -> None:
        self._directory = directory
        self._warn = warn

    def load(self, key: LoginKey, kind: str) -> Document | None:
        """What is kept, or None. :raises Failed: the file, or the directory, is not its user's alone."""
        return self._read(self._path(key, kind), key.document())

    def save(self, key: LoginKey, kind: str, document: Document) -> None:
        """Whole or not at all. :raises Failed: the directory is not its user's alone."""
        self._prepared()
        write_private(self._path(key, kind), json.dumps({"key": key.document()} | document).encode())

    def remove(self, key: LoginKey, kind: str) -> bool:
        """Whether there was one."""
        try:
            self._path(key, kind).unlink()
        except FileNotFoundError:
            return False
        return True

    def logins(self) -> list[LoginKey]:
        """All logins that are kept."""
        found = []
        for path in sorted(self._directory.glob(f"*.{LOGIN}.json")):
            key = _key((self._read(path, None) or {}).get("key"))
            if key is not None and self._path(key, LOGIN) == path:
                found.append(key)
        return found

    @contextmanager
    def locked(self, key: LoginKey, kind: str, patience: float = PATIENCE) -> Iterator[None]:
        """One call at a time renews what is kept: a refresh token that is used twice counts as stolen. The lock goes
        with its process, however that ends.

        :raises Failed: somebody else holds it for longer than that.
        """
        self._prepared()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._directory / f"{key.stem}.{kind}.lock", flags, 0o600)
        try:
            self._acquire(descriptor, patience)
            yield
        finally:
            os.close(descriptor)

    def _acquire(self, descriptor: int, patience: float) -> None:
        began, told = time.monotonic(), False
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = time.monotonic() - began
            if waited > patience:
                raise Failed("another kulvert has been at this login for too long: end it, and try again")
            if waited > 1.0 and not told:
                told = True
                self._warn("waiting for another kulvert that renews the same login")
            time.sleep(0.02)

    def _path(self, key: LoginKey, kind: str) -> Path:
        return self._directory / f"{key.stem}.{kind}.json"

    def _prepared(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_directory()

    def _check_directory(self) -> None:
        _check(self._directory, os.stat(self._directory), "700")

    def _read(self, path: Path, key: Document | None) -> Document | None:
        data = self._bytes(path)
        if data is None:
            return None
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or key not in (None, document.get("key")):
            self._warn(f"{path} is damaged and taken for empty")
            return None
        return document

    def _bytes(self, path: Path) -> bytes | None:
        try:
            self._check_directory()
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            _check(path, found, "600")
            return file.read(MOST + 1)[:MOST] if stat.S_ISREG(found.st_mode) else b""


def _check(path: Path, found: os.stat_result, mode: str) -> None:
    if found.st_uid != os.geteuid():
        raise Failed(f"{path} belongs to another user and is not trusted: remove it, or set {VARIABLE}")
    if stat.S_IMODE(found.st_mode) & _OTHERS:
        raise Failed(f"{path} is open to others than its owner: `chmod {mode} {path}`, then `kulvert login` again")


def _key(found: object) -> LoginKey | None:
    names = ("server", "issuer", "clientId", "profile")
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in names):
        return None
    return LoginKey(*(found[name] for name in names))
