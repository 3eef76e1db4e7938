"""Takes a backup back into an empty state directory: all of it, or nothing.

The file may be anybody's until it is checked. So nothing of it is unpacked by a library: a member has to be a regular
file of a name that a backup may have, in the order and of the size that the manifest says, and whole by its hash. All
is written beside its place first; it is put in place when every check has passed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from auth.pki import CertificateAuthority
from auth.tokenkeys import KeyRingError, read_ring
from cli.backupfile import AUTHORITIES, FORMAT, KEPT, KIND, MANIFEST, STORES, TOKEN_KEYS, Kept, Manifest, most
from cli.failures import Failed

DRAFTS: Final = ".restoring"
"""A directory that only an interrupted restore leaves behind."""
IGNORED: Final = frozenset({DRAFTS, "lost+found"})
_MOST_MANIFEST: Final = 64 * 1024
_MOST_PADDING: Final = 20 * 512
_BLOCK: Final = 512
_PIECE: Final = 1024**2


def restore(source: BinaryIO, directory: Path) -> Manifest:
    """Fills a state directory that is empty, and that the caller has locked (`cli.lock`); gives what the backup says.

    :raises Failed: the directory is not empty, or the backup is not as `cli.backupfile` makes it. Nothing is changed.
    """
    if left := sorted(one.name for one in directory.iterdir() if one.name not in IGNORED):
        raise Failed(f"{directory} is not empty ({', '.join(left[:3])}): restore into a new directory")
    drafts = directory / DRAFTS
    shutil.rmtree(drafts, ignore_errors=True)
    drafts.mkdir(mode=0o700)
    try:
        manifest = _unpack(source, drafts)
        _check(manifest, drafts)
        _place(manifest, drafts, directory)
    finally:
        shutil.rmtree(drafts, ignore_errors=True)
    return manifest


def _unpack(source: BinaryIO, drafts: Path) -> Manifest:
    name, size = _next(source)
    if name != MANIFEST or size > _MOST_MANIFEST:
        raise _bad("it does not begin with a manifest")
    manifest = read_manifest(_exactly(source, size))
    _exactly(source, -size % _BLOCK)
    for one in manifest.files:
        if _next(source) != (one.name, one.size):
            raise _bad(f"{one.name} is not where and what its manifest says")
        _keep(source, one, drafts / one.name)
    rest = source.read(_MOST_PADDING + 1)
    if len(rest) < 2 * _BLOCK or len(rest) > _MOST_PADDING or rest.strip(b"\0"):
        raise _bad("it does not end where its manifest says")
    return manifest


def _next(source: BinaryIO) -> tuple[str, int]:
    """Name and size of the next member. Links, directories and everything longer than one header are refused."""
    try:
        member = tarfile.TarInfo.frombuf(_exactly(source, _BLOCK), "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError):
        raise _bad("it is no tar, or it was cut") from None
    if member.type != tarfile.REGTYPE or member.linkname or member.name not in (MANIFEST, *KEPT):
        raise _bad("it holds what no backup holds")
    return member.name, member.size


def _keep(source: BinaryIO, kept: Kept, path: Path) -> None:
    digest, left = hashlib.sha256(), kept.size
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while left:
            piece = _exactly(source, min(left, _PIECE))
            digest.update(piece)
            file.write(piece)
            left -= len(piece)
        file.flush()
        os.fsync(file.fileno())
    _exactly(source, -kept.size % _BLOCK)
    if digest.hexdigest() != kept.sha256:
        raise _bad(f"{kept.name} is not what it was: its hash is another")


def _exactly(source: BinaryIO, size: int) -> bytes:
    found = b""
    while len(found) < size and (piece := source.read(size - len(found))):
        found += piece
    if len(found) < size:
        raise _bad("it was cut")
    return found


# --- the manifest


def read_manifest(text: bytes) -> Manifest:
    """:raises Failed: it is none, or of a later format."""
    try:
        found = orjson.loads(text)
        if found["kind"] != KIND:
            raise ValueError
        if found["format"] != FORMAT:
            raise Failed(f"the backup is of format {found['format']!r}: use the Kulvert ({_short(found)}) that made it")
        return _manifest(found)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _bad("its manifest is malformed") from None


def _manifest(found: dict[str, Any]) -> Manifest:
    files = tuple(_kept(one) for one in found["files"])
    names = [one.name for one in files]
    if len(set(names)) != len(names) or STORES not in names or not set(names) <= set(KEPT):
        raise ValueError
    stores = {str(store): int(version) for store, version in found["stores"].items()}
    datetime.fromisoformat(found["created"])
    return Manifest(_short(found), found["created"], stores, files)


def _kept(one: dict[str, Any]) -> Kept:
    name, size, digest = one["name"], one["size"], one["sha256"]
    if not (isinstance(name, str) and type(size) is int and isinstance(digest, str)) or not 0 <= size <= most(name):
        raise ValueError
    return Kept(name, size, digest)


def _short(found: dict[str, Any]) -> str:
    version = found.get("version")
    if not isinstance(version, str) or not version.isprintable() or not 0 < len(version) <= 64:
        raise ValueError
    return version


# --- what it holds


def _check(manifest: Manifest, drafts: Path) -> None:
    """That a server can begin with it: better now than when the one before is gone."""
    _check_stores(manifest, drafts / STORES)
    now = datetime.now().astimezone()
    for name in AUTHORITIES:
        if (drafts / name).exists():
            _check_authority(name, (drafts / name).read_bytes(), now)
    if (drafts / TOKEN_KEYS[0]).exists():
        try:
            read_ring((drafts / TOKEN_KEYS[0]).read_bytes())
        except KeyRingError as error:
            raise _bad(f"{TOKEN_KEYS[0]} {error}") from None


def _check_stores(manifest: Manifest, path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            sound = database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            stores = dict(database.execute("SELECT store, version FROM store_version").fetchall())
    except sqlite3.Error as error:
        raise _bad(f"{STORES} is no database of a server ({error})") from None
    if not sound or stores != manifest.stores:
        raise _bad(f"{STORES} is damaged")


def _check_authority(name: str, pem: bytes, now: datetime) -> None:
    try:
        authority = CertificateAuthority.read(pem)
    except ValueError as error:
        raise _bad(f"{name} {error}") from None
    if authority.certificate.not_valid_after_utc <= now:
        raise Failed(f"the backup's {name} expired on {authority.certificate.not_valid_after_utc:%Y-%m-%d}: too old")


def _place(manifest: Manifest, drafts: Path, directory: Path) -> None:
    for one in manifest.files:
        (drafts / one.name).rename(directory / one.name)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bad(why: str) -> Failed:
    return Failed(f"this is no backup that can be restored: {why}; take another one")
