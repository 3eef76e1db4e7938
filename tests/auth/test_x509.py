"""Users by client certificate: which ones count, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.authenticator import AuthenticationFailed
from auth.identity import Credentials
from auth.pki import CertificateAuthority, Issued
from auth.x509 import CertificateAuthenticator

NOW = 1_800_000_000.0
Change = Callable[[x509.CertificateBuilder], x509.CertificateBuilder]


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("users", NOW)


@pytest.fixture(scope="module")
def authenticator(authority: CertificateAuthority) -> CertificateAuthenticator:
    return CertificateAuthenticator((authority.certificate,))


def shown(issued: Issued) -> Credentials:
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    return Credentials(None, certificate.public_bytes(serialization.Encoding.DER))


def name(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def forged(
    authority: CertificateAuthority, subject: x509.Name, *extensions: tuple[x509.ExtensionType, bool]
) -> Credentials:
    """A certificate that the authority signed although it should not have."""
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(authority.certificate.subject)
    builder = builder.public_key(authority.key.public_key()).serial_number(7)
    builder = builder.not_valid_before(datetime.fromtimestamp(NOW - 1, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(NOW + 60, UTC))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return Credentials(None, certificate.public_bytes(serialization.Encoding.DER))


CLIENT = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
JANE = name((NameOID.COMMON_NAME, "jane"))


def test_the_common_name_is_the_user_and_each_organisation_a_group(
    authority: CertificateAuthority, authenticator: CertificateAuthenticator
) -> None:
    identity = authenticator.authenticate(shown(authority.issue_client("jane", ["dev", "ops"], NOW, 600)), NOW)
    assert identity is not None
    assert (identity.user, identity.groups, identity.uid) == ("jane", ("dev", "ops"), "")
    assert identity.expires == NOW + 600
    assert identity.credential_id.startswith("X509SHA256=")
    assert identity.extra == (("authentication.kubernetes.io/credential-id", (identity.credential_id,)),)


def test_a_request_without_a_certificate_is_not_its_business(authenticator: CertificateAuthenticator) -> None:
    assert authenticator.authenticate(Credentials(b"Bearer x"), NOW) is None


def test_another_issuers_certificate_is_not_its_business(authenticator: CertificateAuthenticator) -> None:
    other = CertificateAuthority.create("others", NOW)
    assert authenticator.authenticate(shown(other.issue_client("jane", [], NOW, 60)), NOW) is None


def test_an_authority_that_only_shares_the_name_is_refused(authenticator: CertificateAuthenticator) -> None:
    impostor = CertificateAuthority.create("users", NOW)
    with pytest.raises(AuthenticationFailed, match="signed by none"):
        authenticator.authenticate(shown(impostor.issue_client("jane", [], NOW, 60)), NOW)


@pytest.mark.parametrize("moment", [NOW - 301, NOW + 61])
def test_validity_is_checked_at_each_use(
    authority: CertificateAuthority, authenticator: CertificateAuthenticator, moment: float
) -> None:
    credentials = shown(authority.issue_client("jane", [], NOW, 60))
    assert authenticator.authenticate(credentials, NOW) is not None
    with pytest.raises(AuthenticationFailed, match="expired"):
        authenticator.authenticate(credentials, moment)


def test_an_expired_authority_signs_nothing_that_counts() -> None:
    short = CertificateAuthority.create("users", NOW, lifetime=10)
    outliving = forged(short, JANE, CLIENT)
    authenticator = CertificateAuthenticator((short.certificate,))
    assert authenticator.authenticate(outliving, NOW + 9) is not None
    with pytest.raises(AuthenticationFailed, match="signed by none"):
        authenticator.authenticate(outliving, NOW + 11)


def test_of_two_authorities_with_one_name_each_may_have_signed(authority: CertificateAuthority) -> None:
    renewed = CertificateAuthority.create("users", NOW)
    authenticator = CertificateAuthenticator((authority.certificate, renewed.certificate))
    for signer in (authority, renewed):
        assert authenticator.authenticate(shown(signer.issue_client("jane", [], NOW, 60)), NOW) is not None


def test_a_servers_certificate_is_no_users(
    authority: CertificateAuthority, authenticator: CertificateAuthenticator
) -> None:
    with pytest.raises(AuthenticationFailed, match="client authentication"):
        authenticator.authenticate(shown(authority.issue_server(["gateway"], NOW, 60)), NOW)


def test_the_authoritys_own_certificate_is_no_users(
    authority: CertificateAuthority, authenticator: CertificateAuthenticator
) -> None:
    der = authority.certificate.public_bytes(serialization.Encoding.DER)
    with pytest.raises(AuthenticationFailed, match="CA certificate"):
        authenticator.authenticate(Credentials(None, der), NOW)


@pytest.mark.parametrize(
    ("subject", "extensions", "reason"),
    [
        (JANE, (), "client authentication"),
        (
            JANE,
            ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False),),
            "client authentication",
        ),
        (JANE, (CLIENT, (x509.BasicConstraints(ca=True, path_length=None), True)), "CA certificate"),
        (
            JANE,
            (CLIENT, (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\0"), True)),
            "critical",
        ),
        (name((NameOID.ORGANIZATION_NAME, "dev")), (CLIENT,), "exactly one common name"),
        (name((NameOID.COMMON_NAME, "a"), (NameOID.COMMON_NAME, "b")), (CLIENT,), "exactly one common name"),
    ],
)
def test_certificates_for_other_ends_are_refused(
    authority: CertificateAuthority,
    authenticator: CertificateAuthenticator,
    subject: x509.Name,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...],
    reason: str,
) -> None:
    with pytest.raises(AuthenticationFailed, match=reason):
        authenticator.authenticate(forged(authority, subject, *extensions), NOW)


def test_the_subjects_uid_is_taken_once_and_refused_twice(
    authority: CertificateAuthority, authenticator: CertificateAuthenticator
) -> None:
    uid = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")
    identity = authenticator.authenticate(
        forged(authority, name((NameOID.COMMON_NAME, "jane"), (uid, "u-1")), CLIENT), NOW
    )
    assert identity is not None
    assert identity.uid == "u-1"
    twice = name((NameOID.COMMON_NAME, "jane"), (uid, "u-1"), (uid, "u-2"))
    with pytest.raises(AuthenticationFailed, match="one UID"):
        authenticator.authenticate(forged(authority, twice, CLIENT), NOW)


AUTHORITY = CertificateAuthority.create("users", NOW)
WHOLE = forged(AUTHORITY, JANE, CLIENT).certificate or b""
SIGNED = x509.load_der_x509_certificate(WHOLE).tbs_certificate_bytes


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # what cryptography will refuse one day
@settings(max_examples=500)
@given(place=st.integers(0, len(WHOLE) - 1), change=st.integers(1, 255))
def test_a_damaged_certificate_is_nobodys(place: int, change: int) -> None:
    der = bytearray(WHOLE)
    der[place] ^= change
    try:
        identity = CertificateAuthenticator((AUTHORITY.certificate,)).authenticate(Credentials(None, bytes(der)), NOW)
    except AuthenticationFailed:
        return
    # The count of unused bits in front of the signature is covered by nothing; all that counts here is what was signed.
    untouched = x509.load_der_x509_certificate(bytes(der)).tbs_certificate_bytes == SIGNED
    assert identity is None or untouched


@given(st.binary(max_size=100))
def test_bytes_that_are_no_certificate_are_refused(der: bytes) -> None:
    with pytest.raises(AuthenticationFailed, match="malformed"):
        CertificateAuthenticator((AUTHORITY.certificate,)).authenticate(Credentials(None, der), NOW)


def test_only_authorities_can_be_authorities(authority: CertificateAuthority) -> None:
    client = x509.load_pem_x509_certificate(authority.issue_client("jane", [], NOW, 60).certificate)
    with pytest.raises(ValueError, match="CA certificates"):
        CertificateAuthenticator((client,))
    with pytest.raises(ValueError, match="at least one"):
        CertificateAuthenticator(())


def test_a_key_of_another_kind_signs_as_well() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    subject = name((NameOID.COMMON_NAME, "big"))
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(datetime.fromtimestamp(NOW - 1, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(NOW + 99, UTC))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    big = CertificateAuthority(builder.sign(key, hashes.SHA384()), key)
    authenticator = CertificateAuthenticator((big.certificate,))
    assert authenticator.authenticate(shown(big.issue_client("jane", [], NOW, 60)), NOW) is not None
