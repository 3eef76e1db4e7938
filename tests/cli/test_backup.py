"""`kulvert backup` and `kulvert restore`: all of a state, of one moment, and nothing that a stranger made of it."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auth.jointoken import JoinToken
from cli.backupfile import KEPT, MANIFEST, taken, write
from cli.failures import Failed
from cli.lock import only_one
from cli.restorefile import restore
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores
from gateway.state import State
from tests.cli.command import kulvert

NOW = time.time()
Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What a server leaves behind: keys, stores with a write-ahead log, grants, and what is not kept."""
    directory = tmp_path / "state"
    kept = State(directory)
    stores = Stores.open(kept.registry)
    stores.registry.add(Cluster("edge-7", "uid-7", NOW))
    stores.close()
    kept.authority(NOW)
    kept.agents_authority(NOW)
    kept.signer(NOW)
    kept.next_epoch(NOW)
    (directory / "grants.yaml").write_text("apiVersion: kulvert.dev/v1alpha1\nkind: Grants\ngrants: []\n")
    (directory / "audit.log").write_text("secret past\n")
    return directory


@pytest.fixture
def made(state: Path) -> bytes:
    return backed_up(state)


def backed_up(state: Path) -> bytes:
    target = io.BytesIO()
    with taken(state, "1.2.3", NOW) as (manifest, contents):
        write(manifest, contents, target)
    return target.getvalue()


def restored(backup: bytes, directory: Path) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    restore(io.BytesIO(backup), directory)
    return directory


def clusters(directory: Path) -> list[str]:
    stores = Stores.open(directory / "clusters.db")
    try:
        return [cluster.name for cluster in stores.registry.list()]
    finally:
        stores.close()


def test_a_backup_holds_what_cannot_be_made_anew_and_gives_it_back(state: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "kept.tar", tmp_path / "elsewhere"
    result = kulvert("backup", file, "--state-dir", state)
    assert (result.exit_code, "keep it secret" in result.stderr) == (0, True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"secret past" not in file.read_bytes()
    result = kulvert("restore", file, "--state-dir", other)
    assert (result.exit_code, "revoked, removed or rotated" in result.stderr) == (0, True)
    for name in ("ca.pem", "agents-ca.pem", "token-keys.json", "epoch", "grants.yaml"):
        assert (other / name).read_bytes() == (state / name).read_bytes()
    assert clusters(other) == ["edge-7"]
    assert {stat.S_IMODE(one.stat().st_mode) for one in other.iterdir()} == {0o600}
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    assert sorted(one.name for one in state.iterdir() if one.name.startswith(".")) == []


def test_any_tar_reads_it_and_its_manifest_says_what_is_in_it(made: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        head = tar.extractfile(MANIFEST)
        assert head is not None
        said = json.load(head)
        assert tar.getnames() == [MANIFEST, *[one["name"] for one in said["files"]]]
    assert (said["kind"], said["format"], said["version"]) == ("kulvert-backup", 1, "1.2.3")
    assert said["stores"]
    assert all(version > 0 for version in said["stores"].values())
    assert {one["name"] for one in said["files"]} <= set(KEPT)


def test_a_backup_under_writes_is_of_one_moment(state: Path, tmp_path: Path) -> None:
    """A cluster and its join token are written together: a copy has both, or neither."""
    stop = threading.Event()

    def go_on() -> None:
        stores, number = Stores.open(state / "clusters.db"), 0
        while not stop.is_set():
            with stores.registry.database.writing() as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS first (number INTEGER)")
                connection.execute("CREATE TABLE IF NOT EXISTS second (number INTEGER)")
                connection.execute("INSERT INTO first VALUES (?)", (number,))
                connection.execute("INSERT INTO second VALUES (?)", (number,))
            number += 1
        stores.close()

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        for round_ in range(5):
            there = restored(backed_up(state), tmp_path / str(round_))
            with sqlite3.connect(there / "clusters.db") as database:
                tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")}
                if "first" in tables:
                    query = "SELECT (SELECT max(number) FROM first), (SELECT max(number) FROM second)"
                    first, second = database.execute(query).fetchone()
                    assert first == second
            database.close()
    finally:
        stop.set()
        writer.join()


def test_what_is_still_in_the_write_ahead_log_is_in_the_backup(state: Path, tmp_path: Path) -> None:
    stores = Stores.open(state / "clusters.db")
    try:
        stores.registry.add(Cluster("new", None, NOW))
        assert (state / "clusters.db-wal").stat().st_size
        there = restored(backed_up(state), tmp_path / "there")
    finally:
        stores.close()
    assert clusters(there) == ["edge-7", "new"]
    token = JoinToken.create(os.urandom)
    stores = Stores.open(there / "clusters.db")
    stores.tokens.add(token.stored("new", NOW + 60, created=NOW))
    stores.close()


# --- where it refuses


@pytest.mark.parametrize("there", ["ca.pem", "clusters.db", "anything"])
def test_nothing_is_restored_over_something(made: bytes, tmp_path: Path, there: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / there).write_text("mine")
    with pytest.raises(Failed, match="is not empty"):
        restored(made, tmp_path / "there")
    assert [one.name for one in (tmp_path / "there").iterdir()] == [there]
    assert (tmp_path / "there" / there).read_text() == "mine"


def test_an_interrupted_restore_and_a_new_volume_count_as_empty(made: bytes, tmp_path: Path) -> None:
    (tmp_path / "there" / ".restoring").mkdir(parents=True)
    (tmp_path / "there" / ".restoring" / "clusters.db").write_text("half")
    (tmp_path / "there" / "lost+found").mkdir()
    assert clusters(restored(made, tmp_path / "there")) == ["edge-7"]


def test_a_running_servers_directory_is_refused(state: Path, tmp_path: Path) -> None:
    kulvert("backup", tmp_path / "kept.tar", "--state-dir", state)
    with only_one(tmp_path / "running"):
        result = kulvert("restore", tmp_path / "kept.tar", "--state-dir", tmp_path / "running")
    assert (result.exit_code, "another Kulvert server runs" in result.stderr) == (1, True)


def test_a_backup_overwrites_nothing_and_needs_a_state(state: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.tar").write_text("older")
    result = kulvert("backup", tmp_path / "kept.tar", "--state-dir", state)
    assert (result.exit_code, "is there already" in result.stderr) == (1, True)
    assert (tmp_path / "kept.tar").read_text() == "older"
    result = kulvert("backup", tmp_path / "new.tar", "--state-dir", tmp_path / "tpyo")
    assert (result.exit_code, "name it by --state-dir" in result.stderr) == (1, True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["kept.tar", "state"]


def test_a_secret_that_is_open_to_others_is_no_backup(state: Path, tmp_path: Path) -> None:
    (state / "ca.pem").chmod(0o644)
    result = kulvert("backup", tmp_path / "kept.tar", "--state-dir", state)
    assert (result.exit_code, "chmod 600" in result.stderr) == (1, True)
    assert not (tmp_path / "kept.tar").exists()


def members(backup: bytes) -> Members:
    found: Members = []
    with tarfile.open(fileobj=io.BytesIO(backup)) as tar:
        for one in tar:
            content = tar.extractfile(one)
            found.append((one, content.read() if content else b""))
    return found


def tar_of(made: Members, form: int = tarfile.USTAR_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as tar:
        for one, content in made:
            one.size = len(content)
            tar.addfile(one, io.BytesIO(content))
    return target.getvalue()


def change(name: str, make: Callable[[bytes], bytes]) -> Callable[[Members], Members]:
    return lambda found: [(one, make(content) if one.name == name else content) for one, content in found]


def manifest(**changes: Any) -> Callable[[Members], Members]:
    return change(MANIFEST, lambda text: json.dumps(json.loads(text) | changes).encode())


def in_files(**changes: Any) -> Callable[[Members], Members]:
    def make(text: bytes) -> bytes:
        said = json.loads(text)
        said["files"][0] |= changes
        return json.dumps(said).encode()

    return change(MANIFEST, make)


def twice(text: bytes) -> bytes:
    said = json.loads(text)
    return json.dumps(said | {"files": [*said["files"], said["files"][-1]]}).encode()


def renamed(name: str, **attributes: Any) -> Callable[[Members], Members]:
    def make(found: Members) -> Members:
        for one, _ in found:
            if one.name == "ca.pem":
                one.name = name
                for attribute, value in attributes.items():
                    setattr(one, attribute, value)
        return found

    return make


HOSTILE: dict[str, tuple[Callable[[Members], Members], str]] = {
    "a path upwards": (renamed("../ca.pem"), "what no backup holds"),
    "an absolute path": (renamed("/etc/ca.pem"), "what no backup holds"),
    "a symbolic link": (renamed("ca.pem", type=tarfile.SYMTYPE, linkname="/etc/shadow"), "what no backup holds"),
    "a hard link": (renamed("ca.pem", type=tarfile.LNKTYPE, linkname="clusters.db"), "what no backup holds"),
    "a device": (renamed("ca.pem", type=tarfile.CHRTYPE), "what no backup holds"),
    "a directory": (renamed("ca.pem", type=tarfile.DIRTYPE), "what no backup holds"),
    "a name of no backup's": (renamed("server.pem"), "what no backup holds"),
    "another order": (lambda found: [found[0], *reversed(found[1:])], "not where and what"),
    "no manifest": (lambda found: found[1:], "does not begin with a manifest"),
    "a member twice": (lambda found: [*found, found[-1]], "does not end where"),
    "a member too few": (lambda found: found[:-1], "it holds what|it is no tar"),
    "a changed key": (change("ca.pem", lambda pem: pem.replace(b"M", b"N", 1)), "its hash is another"),
    "a changed size": (change("grants.yaml", lambda text: text + b" "), "not where and what"),
    "a later format": (manifest(format=2), "format 2: use the Kulvert"),
    "another kind": (manifest(kind="other"), "manifest is malformed"),
    "a manifest of lists": (change(MANIFEST, lambda _: b"[]"), "manifest is malformed"),
    "a manifest that is long": (change(MANIFEST, lambda text: text + b" " * 70_000), "does not begin with"),
    "a negative size": (in_files(size=-1), "manifest is malformed"),
    "a size beyond all": (in_files(size=1 << 60), "manifest is malformed"),
    "a size of another type": (in_files(size=True), "manifest is malformed"),
    "a path in the manifest": (in_files(name="../clusters.db"), "manifest is malformed"),
    "the same twice in the manifest": (change(MANIFEST, lambda text: twice(text)), "manifest is malformed"),
    "other stores": (manifest(stores={"registry": 1}), "clusters.db is damaged"),
    "a version that is a terminal's": (manifest(version="\x1b[2J"), "manifest is malformed"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_backup_changes_nothing(made: bytes, tmp_path: Path, case: str) -> None:
    make, why = HOSTILE[case]
    with pytest.raises(Failed, match=why):
        restored(tar_of(make(members(made))), tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []
    assert sorted(one.name for one in tmp_path.iterdir()) == ["state", "there"]


def test_long_headers_of_other_formats_are_refused_before_they_are_read(made: bytes, tmp_path: Path) -> None:
    found = members(made)
    found[0][0].pax_headers = {"comment": "x" * 2_000_000}
    with pytest.raises(Failed, match="what no backup holds"):
        restored(tar_of(found, tarfile.PAX_FORMAT), tmp_path / "there")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_cut_backup_is_refused(made: bytes, tmp_path: Path, share: float) -> None:
    whole = made.rstrip(b"\0")
    with pytest.raises(Failed, match=r"it was cut|does not end"):
        restored(made[: int(len(whole) * share)], tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_keys_that_no_server_could_use_are_refused_although_their_hash_is_right(state: Path, tmp_path: Path) -> None:
    (state / "agents-ca.pem").write_text("no key")
    with pytest.raises(Failed, match=r"agents-ca\.pem does not hold"):
        restored(backed_up(state), tmp_path / "there")
    (state / "agents-ca.pem").unlink()
    (state / "token-keys.json").write_text("{}")
    with pytest.raises(Failed, match=r"token-keys\.json"):
        restored(backed_up(state), tmp_path / "other")


def test_an_expired_authority_is_said_now_and_not_at_the_servers_start(state: Path, tmp_path: Path) -> None:
    from auth.pki import CertificateAuthority

    old = CertificateAuthority.create("kulvert", NOW - 200, lifetime=100)
    (state / "ca.pem").write_bytes(old.to_pem())
    with pytest.raises(Failed, match="expired on"):
        restored(backed_up(state), tmp_path / "there")
