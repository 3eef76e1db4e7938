"""The agent's identity on disk: used as it is, or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent.identityfile import ASKING, IDENTITY, AgentIdentity, IdentityError, IdentityFile, key_pem, new_key
from agent.privatefile import write_private
from agent.settings import ConfigError
from tests.support.agentauthority import Book

BOOK = Book()
ALPHA = ("alpha", "uid-of-alpha")


def test_what_was_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    IdentityFile(tmp_path / "state").save(BOOK.identity())
    found = IdentityFile(tmp_path / "state").load(*ALPHA)
    assert found is not None
    assert (found.der, found.expires) == (BOOK.identity().der, BOOK.identity().expires)
    assert found.key.private_numbers() == BOOK.identity().key.private_numbers()
    assert stat.S_IMODE((tmp_path / "state" / IDENTITY).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_without_a_directory_nothing_is_kept() -> None:
    file = IdentityFile(None)
    file.save(BOOK.identity())
    assert file.load(*ALPHA) is None
    assert file.asking_key() is file.asking_key()


def test_a_restart_asks_with_the_same_key_until_it_has_a_certificate(tmp_path: Path) -> None:
    first = IdentityFile(tmp_path).asking_key()
    file = IdentityFile(tmp_path)
    assert file.asking_key().private_numbers() == first.private_numbers()
    assert stat.S_IMODE((tmp_path / ASKING).stat().st_mode) == 0o600
    file.save(BOOK.identity())
    assert not (tmp_path / ASKING).exists()
    assert file.asking_key().private_numbers() != first.private_numbers()


@pytest.mark.parametrize("who", [("beta", "uid-of-alpha"), ("alpha", "uid-of-beta")])
def test_an_identity_of_another_cluster_is_never_used(tmp_path: Path, who: tuple[str, str]) -> None:
    """A volume that came from another cluster, or a cluster that was made anew."""
    IdentityFile(tmp_path).save(BOOK.identity())
    before = (tmp_path / IDENTITY).read_bytes()
    with pytest.raises(ConfigError, match="move the file away, and it is enrolled anew"):
        IdentityFile(tmp_path).load(*who)
    assert (tmp_path / IDENTITY).read_bytes() == before


PEM = BOOK.identity().pem()
ED25519 = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
DAMAGED = {
    "nothing": b"",
    "cut": PEM[: len(PEM) // 2],
    "the key alone": key_pem(BOOK.identity().key),
    "the certificate alone": BOOK.identity().chain.encode(),
    "another key": key_pem(new_key()) + BOOK.identity().chain.encode(),
    "a key of another kind": ED25519 + BOOK.identity().chain.encode(),
    "bytes": bytes(range(256)),
    "a certificate without names": key_pem(BOOK.ca.key) + BOOK.ca.certificate_pem,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_told_and_left_alone(tmp_path: Path, content: bytes) -> None:
    write_private(tmp_path / IDENTITY, content)
    with pytest.raises(ConfigError, match="move") as caught:
        IdentityFile(tmp_path).load(*ALPHA)
    assert str(tmp_path / IDENTITY) in str(caught.value)
    assert "BEGIN" not in str(caught.value)
    assert (tmp_path / IDENTITY).read_bytes() == content


def test_a_damaged_key_to_ask_with_is_told(tmp_path: Path) -> None:
    write_private(tmp_path / ASKING, b"half")
    with pytest.raises(ConfigError, match="is damaged"):
        IdentityFile(tmp_path).asking_key()


def test_a_file_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    IdentityFile(tmp_path).save(BOOK.identity())
    (tmp_path / IDENTITY).chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        IdentityFile(tmp_path).load(*ALPHA)


@pytest.mark.parametrize("chain", ["", "no PEM", "ü", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_no_identity(chain: str) -> None:
    with pytest.raises(IdentityError):
        AgentIdentity.of(new_key(), chain, *ALPHA)


def test_the_key_is_in_no_representation() -> None:
    assert "PRIVATE" not in repr(BOOK.identity())
    assert "BEGIN" not in repr(BOOK.identity())
