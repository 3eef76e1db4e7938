"""Authorities in their file: the next one counts before it signs, the one before counts until it is taken away."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from auth.authorityfile import MOST, AuthorityFile, LiveAuthority, id_of
from auth.pki import CertificateAuthority
from auth.statefile import StateFileError

NOW = 1_800_000_000.0
DAY = 86_400.0


@pytest.fixture
def file(tmp_path: Path) -> AuthorityFile:
    made = AuthorityFile(tmp_path / "ca.pem", "kulvert")
    made.load(NOW)
    return made


def ids(file: AuthorityFile) -> list[str]:
    return [id_of(one.certificate) for one in file.all()]


def test_an_authority_is_replaced_in_three_steps(file: AuthorityFile) -> None:
    (old,) = ids(file)
    new = id_of(file.add(NOW).certificate)
    assert ids(file) == [old, new]
    file.use(new, NOW)
    assert ids(file) == [new, old]
    file.remove(old)
    assert ids(file) == [new]
    assert file.load(NOW).others == ()


def test_what_is_read_signs_with_the_first_and_trusts_all(file: AuthorityFile) -> None:
    first, second = file.load(NOW), file.add(NOW)
    for read in (file.load(NOW), file.read(), CertificateAuthority.read(file.path.read_bytes())):
        assert read.certificate == first.certificate
        assert read.key.private_numbers() == first.key.private_numbers()
        assert read.trusted == (first.certificate, second.certificate)
    file.use(id_of(second.certificate), NOW)
    made = file.load(NOW).issue_client("ada", [], NOW, DAY)
    x509.load_pem_x509_certificate(made.certificate).verify_directly_issued_by(second.certificate)
    assert file.load(NOW).trusted == (second.certificate, first.certificate)


def test_a_running_server_follows(file: AuthorityFile) -> None:
    live = LiveAuthority(file, NOW)
    assert not live.poll()
    before = live()
    file.add(NOW)
    assert live.poll()
    assert live().certificate == before.certificate
    assert len(live().trusted) == 2
    assert "PRIVATE" not in repr(live)


def test_what_cannot_be_done_says_why_and_changes_nothing(file: AuthorityFile, tmp_path: Path) -> None:
    (old,) = ids(file)
    with pytest.raises(StateFileError, match="signs: use another one first"):
        file.remove(old)
    with pytest.raises(StateFileError, match="no authority nobody"):
        file.remove("nobody")
    with pytest.raises(StateFileError, match="no authority nobody"):
        file.use("nobody", NOW)
    for _ in range(MOST - 1):
        file.add(NOW)
    with pytest.raises(StateFileError, match="remove one"):
        file.add(NOW)
    assert ids(file)[0] == old
    assert len(ids(file)) == MOST
    with pytest.raises(StateFileError, match="name the state directory"):
        AuthorityFile(tmp_path / "other" / "ca.pem", "kulvert").add(NOW)
    assert not (tmp_path / "other").exists()


def test_an_expired_one_is_not_used(tmp_path: Path) -> None:
    file = AuthorityFile(tmp_path / "ca.pem", "kulvert")
    file.load(NOW)
    old = CertificateAuthority.create("kulvert", NOW - 2 * DAY, lifetime=DAY)
    with file.path.open("ab") as more:
        more.write(old.to_pem())
    with pytest.raises(StateFileError, match="has expired"):
        file.use(id_of(old.certificate), NOW)


def test_a_damaged_file_is_refused_and_a_live_one_goes_on(file: AuthorityFile) -> None:
    live = LiveAuthority(file, NOW)
    before = live()
    file.path.write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n-----END PRIVATE KEY-----\n")
    with pytest.raises(StateFileError):
        live.poll()
    assert live() is before
