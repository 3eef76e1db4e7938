"""The keys' file: private, changed by one at a time, and heir to the single key of before."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from auth.statefile import StateFileError, write_private
from auth.tokenkeys import KeyRing
from auth.tokenkeysfile import KeyFile, KeysBusy

NOW = 1_800_000_000.0


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "state" / "token-keys.json", tmp_path / "state" / "token-key.pem")


def kids(ring: KeyRing) -> list[str]:
    return [key.verification.kid for key in ring.keys]


def test_the_first_look_makes_a_key_and_the_next_one_finds_it(file: KeyFile) -> None:
    first = file.load("https://gw", NOW)
    assert kids(file.load("https://other", NOW)) == kids(first)
    assert file.load("https://other", NOW).issuer == "https://gw"
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.path.parent.iterdir()} == {
        "token-keys.json": 0o600,
        "token-keys.lock": 0o600,
    }


def test_the_single_key_of_before_signs_on(file: KeyFile) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(file.single, key.private_bytes(*form))
    os.utime(file.single, (NOW - 500, NOW - 500))
    ring = file.load("https://gw", NOW)
    assert ring.signing(NOW).private.public_key() == key.public_key()
    assert ring.keys[0].active == NOW - 500
    assert not file.single.exists()
    assert kids(file.load("https://gw", NOW)) == kids(ring)


def test_a_change_is_made_of_what_is_there_under_the_lock(file: KeyFile) -> None:
    stale = file.load("https://gw", NOW)
    file.change(lambda ring: ring.rotated(NOW, 60), "https://gw", NOW)
    seen: list[list[str]] = []

    def look(ring: KeyRing) -> KeyRing:
        seen.append(kids(ring))
        return ring

    file.change(look, "https://gw", NOW)
    assert len(seen[0]) == 2
    assert seen[0][0] == kids(stale)[0]


def test_nothing_is_written_where_nothing_changed(file: KeyFile) -> None:
    file.load("https://gw", NOW)
    before = file.mark()
    file.change(lambda ring: ring, "https://gw", NOW)
    assert file.mark() == before


def test_another_processs_change_is_waited_for_only_so_long(file: KeyFile) -> None:
    file.load("https://gw", NOW)
    descriptor = os.open(file.path.with_suffix(".lock"), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(KeysBusy, match="try again"):
        file.change(lambda ring: ring.rotated(NOW, 60), "https://gw", NOW, patience=0.05)
    assert len(file.load("https://gw", NOW).keys) == 1  # readers need no lock
    os.close(descriptor)
    assert len(file.change(lambda ring: ring.rotated(NOW, 60), "https://gw", NOW).keys) == 2


_ROTATE = """
import sys
from pathlib import Path
from auth.tokenkeysfile import KeyFile
file = KeyFile(Path(sys.argv[1]), Path(sys.argv[2]))
file.load("https://gw", 1_800_000_000.0)
file.change(lambda ring: ring.rotated(1_800_000_000.0, 60), "https://gw", 1_800_000_000.0)
"""


def test_two_processes_that_find_a_rotation_due_make_one_new_key(file: KeyFile) -> None:
    argv = [sys.executable, "-c", _ROTATE, str(file.path), str(file.single)]
    together = [subprocess.Popen(argv) for _ in range(3)]
    assert [process.wait(30) for process in together] == [0, 0, 0]
    assert len(file.load("https://gw", NOW).keys) == 2


@pytest.mark.parametrize("damage", ["open", "cut", "empty"])
def test_a_file_that_cannot_be_trusted_is_refused_and_not_replaced(file: KeyFile, damage: str) -> None:
    file.load("https://gw", NOW)
    if damage == "open":
        file.path.chmod(0o640)
    else:
        file.path.write_bytes(file.path.read_bytes()[: 40 if damage == "cut" else 0])
    content = file.path.read_bytes()
    with pytest.raises(StateFileError) as refused:
        file.load("https://gw", NOW)
    assert "PRIVATE" not in str(refused.value)
    with pytest.raises(StateFileError):
        file.change(lambda ring: ring, "https://gw", NOW)
    assert file.path.read_bytes() == content


def test_a_single_key_that_is_none_stops_the_start(file: KeyFile) -> None:
    write_private(file.single, b"planted")
    with pytest.raises(StateFileError, match="no signing key"):
        file.load("https://gw", NOW)
    assert file.single.exists()
