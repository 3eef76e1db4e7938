"""A backup of a server's state: one tar (ustar, regular files alone), in which a manifest comes first.

It is taken beside a running server. The database is copied by SQLite's own backup, so it is of one moment; every other
file is replaced whole by whoever changes it, so one read of it is one version. What a server makes anew by itself (its
own certificate), what tells of the past (audit log, recordings) and what lies elsewhere (its configuration) is not in
it.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from auth.statefile import read_private
from cli.failures import Failed

KIND: Final = "kulvert-backup"
FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
STORES: Final = "clusters.db"
GRANTS: Final = "grants.yaml"
AUTHORITIES: Final = ("ca.pem", "agents-ca.pem", "replicas-ca.pem")
TOKEN_KEYS: Final = ("token-keys.json", "token-key.pem")
SECRETS: Final = (*AUTHORITIES, *TOKEN_KEYS, "epoch", "keys-in-hub.json")
KEPT: Final = (STORES, *SECRETS, GRANTS)
"""All that may be in one; only the database has to be."""
MOST_STORES: Final = 8 * 1024**3 - 1
"""Bytes: what the size of a ustar header can say."""
MOST: Final = 16 * 1024**2
"""Bytes of any other file."""
_BLOCK: Final = 512
_PIECE: Final = 1024**2


@dataclass(frozen=True, slots=True)
class Kept:
    """One file: its size in bytes, and its SHA-256 (hex)."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself. `version` is the Kulvert's that made it, `stores` how far each store's tables were
    migrated, `created` when the database was copied (RFC 3339).
    """

    version: str
    created: str
    stores: Mapping[str, int]
    files: tuple[Kept, ...]

    def dumped(self) -> bytes:
        """As it is in the backup."""
        files = [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in self.files]
        head: dict[str, Any] = {"kind": KIND, "format": FORMAT, "version": self.version, "created": self.created}
        return orjson.dumps({**head, "stores": dict(self.stores), "files": files}, option=orjson.OPT_INDENT_2)


def most(name: str) -> int:
    """How many bytes a file of this name may have."""
    return MOST_STORES if name == STORES else MOST


@contextmanager
def taken(directory: Path, version: str, now: float) -> Iterator[tuple[Manifest, Mapping[str, Path | bytes]]]:
    """A copy of what is in a state directory: what `write` writes. Raises Failed, StateFileError, OSError.

    The copy of the database is in the state directory while it is needed: it is as secret as that.
    """
    if not (directory / STORES).exists():
        raise Failed(f"there is no server's state in {directory}: name it by --state-dir or KULVERT_STATE_DIR")
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=directory) as drafts:
        database = Path(drafts) / STORES
        stores = _copy(directory / STORES, database)
        contents: dict[str, Path | bytes] = {STORES: database}
        contents |= {name: content for name in SECRETS if (content := read_private(directory / name)) is not None}
        if (directory / GRANTS).exists():
            contents[GRANTS] = (directory / GRANTS).read_bytes()  # no secret: its owner may have opened it to others
        created = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield Manifest(version, created, stores, tuple(_kept(*one) for one in contents.items())), contents


def write(manifest: Manifest, contents: Mapping[str, Path | bytes], target: BinaryIO) -> None:
    """The whole backup. Raises OSError."""
    created = int(datetime.fromisoformat(manifest.created).timestamp())
    head = manifest.dumped()
    target.write(_header(MANIFEST, len(head), created) + _padded(head))
    for one in manifest.files:
        target.write(_header(one.name, one.size, created))
        for piece in _pieces(contents[one.name]):
            target.write(piece)
        target.write(bytes(-one.size % _BLOCK))
    target.write(bytes(2 * _BLOCK))


def _copy(source: Path, target: Path) -> dict[str, int]:
    """A copy of one moment, whatever is written meanwhile; gives how far its stores are migrated."""
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    try:
        opened = sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=10.0)
        with closing(opened) as before, closing(sqlite3.connect(target, isolation_level=None)) as after:
            before.backup(after)
            after.execute("PRAGMA journal_mode = DELETE")  # all of it is in the one file
            return dict(after.execute("SELECT store, version FROM store_version").fetchall())
    except sqlite3.Error as error:
        raise Failed(f"{source} cannot be copied ({error}): is it a server's database, and is there room?") from None


def _kept(name: str, content: Path | bytes) -> Kept:
    size, digest = 0, hashlib.sha256()
    for piece in _pieces(content):
        size += len(piece)
        digest.update(piece)
    if size > most(name):
        raise Failed(f"{name} is too large for a backup: {size} bytes, of {most(name)} at most")
    return Kept(name, size, digest.hexdigest())


def _pieces(content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _header(name: str, size: int, created: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, created
    return member.tobuf(tarfile.USTAR_FORMAT)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _BLOCK)
