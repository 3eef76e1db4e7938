"""The platform's authority: made once, kept private, and its certificates good for what they are for."""

from __future__ import annotations

import ssl
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from auth.pki import CertificateAuthority, Issued
from auth.statefile import StateFileError
from auth.x509 import CertificateAuthenticator
from tests.auth.certificates import shown

NOW = 1_800_000_000.0


def loaded(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.certificate)


def test_an_authority_is_made_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ca.pem"
    first = CertificateAuthority.load_or_create(path, "kulvert", NOW)
    again = CertificateAuthority.load_or_create(path, "other", NOW)
    assert first.certificate == again.certificate
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.certificate_pem in path.read_bytes()
    assert b"PRIVATE" not in first.certificate_pem


@pytest.mark.parametrize("damage", ["open", "cut", "empty", "mixed", "expired"])
def test_a_file_that_cannot_be_trusted_stops_the_start(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ca.pem"
    authority = CertificateAuthority.load_or_create(path, "kulvert", NOW)
    now = NOW
    if damage == "open":
        path.chmod(0o644)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "mixed":
        other = CertificateAuthority(authority.certificate, ec.generate_private_key(ec.SECP256R1()))
        path.write_bytes(other.to_pem())
    else:
        now += 11 * 365 * 86400
    with pytest.raises(StateFileError) as refused:
        CertificateAuthority.load_or_create(path, "kulvert", now)
    assert "PRIVATE" not in str(refused.value)


def test_a_users_certificate_names_user_and_groups() -> None:
    authority = CertificateAuthority.create("kulvert", NOW)
    certificate = loaded(authority.issue_client("admin", ["kulvert:admins", "dev"], NOW, 3600))
    certificate.verify_directly_issued_by(authority.certificate)
    subject = certificate.subject
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["admin"]
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == [
        "kulvert:admins",
        "dev",
    ]
    assert certificate.not_valid_after_utc.timestamp() == NOW + 3600


def test_names_that_x509_cannot_hold_are_refused() -> None:
    authority = CertificateAuthority.create("kulvert", NOW)
    for user in ("", "u" * 65):
        with pytest.raises(ValueError):
            authority.issue_client(user, [], NOW, 60)
    with pytest.raises(ValueError, match="at least one name"):
        authority.issue_server([], NOW, 60)


def test_a_users_own_key_is_certified_with_user_groups_and_uid() -> None:
    authority = CertificateAuthority.create("kulvert", NOW)
    for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        certificate = authority.certify(key.public_key(), "jane", ["dev"], "u-1", NOW, 3600)
        certificate.verify_directly_issued_by(authority.certificate)
        assert certificate.public_key() == key.public_key()
        identity = CertificateAuthenticator((authority.certificate,)).authenticate(shown(certificate), NOW)
        assert identity is not None
        assert (identity.user, identity.groups, identity.uid) == ("jane", ("dev",), "u-1")
        assert identity.expires == NOW + 3600
    for user, groups in (("", []), ("u" * 65, []), ("jane", [""]), ("jane", ["g" * 65])):
        with pytest.raises(ValueError):
            authority.certify(key.public_key(), user, groups, "", NOW, 60)


def test_an_authority_is_dated_back_by_a_day_and_what_it_signs_by_five_minutes() -> None:
    authority = CertificateAuthority.create("kulvert", NOW)
    assert authority.certificate.not_valid_before_utc.timestamp() == NOW - 86400
    assert authority.certificate.not_valid_after_utc.timestamp() == NOW + 10 * 365 * 86400
    assert loaded(authority.issue_client("jane", [], NOW, 3600)).not_valid_before_utc.timestamp() == NOW - 300


def test_an_authority_of_a_clock_that_was_ahead_counts_when_that_is_set_right() -> None:
    authority = CertificateAuthority.create("kulvert", NOW + 14 * 3600)
    certificate = authority.certify(ed25519.Ed25519PrivateKey.generate().public_key(), "jane", [], "", NOW, 3600)
    identity = CertificateAuthenticator((authority.certificate,)).authenticate(shown(certificate), NOW)
    assert identity is not None


def test_no_certificate_outlives_its_authority() -> None:
    authority = CertificateAuthority.create("kulvert", NOW, lifetime=100)
    assert loaded(authority.issue_client("jane", [], NOW, 3600)).not_valid_after_utc.timestamp() == NOW + 100


def test_openssl_accepts_the_certificates_on_both_sides(tmp_path: Path) -> None:
    now = time.time()
    authority = CertificateAuthority.create("kulvert", now)
    server = context(
        tmp_path,
        ssl.PROTOCOL_TLS_SERVER,
        authority,
        authority.issue_server(["gw.test", "127.0.0.1", "::1"], now, 60),
    )
    server.verify_mode = ssl.CERT_REQUIRED
    client = context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue_client("jane", ["dev"], now, 60))
    for host in ("gw.test", "127.0.0.1", "::1"):
        assert shaken(client, server, host)
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(client, server, "other.test")


def context(directory: Path, protocol: int, authority: CertificateAuthority, issued: Issued) -> ssl.SSLContext:
    made = ssl.SSLContext(protocol)
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=authority.certificate_pem.decode())
    (directory / "pair.pem").write_bytes(issued.certificate + issued.key)
    made.load_cert_chain(directory / "pair.pem")
    return made


def shaken(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> bool:
    """A TLS handshake in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    done: set[int] = set()
    for _ in range(10):
        for number, side in enumerate(sides):
            try:
                side.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                pass
    return len(done) == 2


def test_keys_are_shown_in_no_repr() -> None:
    authority = CertificateAuthority.create("kulvert", NOW)
    issued = authority.issue_client("jane", [], NOW, 60)
    assert "PRIVATE" not in repr(issued)
    assert "key" not in repr(issued)
    assert "key" not in repr(authority)
