"""Signing requests: a good key in its holder's hands, and nothing asked that its sender is not."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.csr import RequestRefused, key_of
from auth.identity import Identity
from auth.pki import UID
from tests.auth.certificates import USER, name, request, text

JANE = Identity("jane", ("dev", "ops"), "u-1", (), "oidc", "JTI=1", 10.0)
CN, O = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME  # noqa: E741 -- as certificates call it
WHOLE = ((CN, "jane"), (O, "dev"), (O, "ops"), (UID, "u-1"))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65_537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "RSA", "Ed25519"],
)
def test_good_keys_are_taken(key: object) -> None:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    assert key_of(text(request(key=key, algorithm=algorithm)), JANE) == key.public_key()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (rsa.generate_private_key(65_537, 1024), "2048 to 8192"),  # noqa: S505 -- what is refused
        (rsa.generate_private_key(3, 2048), "65537"),
        (ec.generate_private_key(ec.SECP521R1()), "P-256"),
        (ec.generate_private_key(ec.SECP224R1()), "P-256"),
        (dsa.generate_private_key(2048), "no kind"),
    ],
    ids=["short RSA", "small exponent", "P-521", "P-224", "DSA"],
)
def test_other_keys_are_not(key: object, reason: str) -> None:
    with pytest.raises(RequestRefused, match=reason):
        key_of(text(request(key=key)), JANE)


@pytest.mark.parametrize("subject", [(), WHOLE, WHOLE[::-1]])
def test_a_subject_may_be_empty_or_ones_own(subject: tuple[tuple[x509.ObjectIdentifier, str], ...]) -> None:
    assert key_of(text(request(name(*subject))), JANE) == USER.public_key()


@pytest.mark.parametrize(
    "subject",
    [
        ((CN, "root"), *WHOLE[1:]),
        (*WHOLE, (O, "system:masters")),
        (*WHOLE, (CN, "root")),
        WHOLE[:2] + WHOLE[3:],
        WHOLE[:3],
        (*WHOLE[:3], (UID, "u-2")),
        (*WHOLE, (NameOID.COUNTRY_NAME, "CH")),
        ((O, "dev"),),
    ],
)
def test_what_is_not_ones_own_is_refused_and_never_merged(
    subject: tuple[tuple[x509.ObjectIdentifier, str], ...],
) -> None:
    with pytest.raises(RequestRefused, match="leave it empty"):
        key_of(text(request(name(*subject))), JANE)


@pytest.mark.parametrize(
    "extension",
    [x509.SubjectAlternativeName([x509.DNSName("x")]), x509.BasicConstraints(ca=True, path_length=None)],
)
def test_extensions_cannot_be_asked_for(extension: x509.ExtensionType) -> None:
    with pytest.raises(RequestRefused, match="extensions"):
        key_of(text(request(extension=extension)), JANE)


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    good = request().public_bytes(Encoding.DER)
    bad = base64.encodebytes(good[:-1] + bytes([good[-1] ^ 1]))
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + bad + b"-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(RequestRefused, match="own key"):
        key_of(base64.b64encode(pem).decode(), JANE)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("", "give one"),
        ("%%", "base64"),
        ("é", "base64"),
        (base64.b64encode(b"hello").decode(), "give one"),
        ("A" * 20_000, "longer"),
        (text(request()) + "\n", "base64"),
        (base64.b64encode(request().public_bytes(Encoding.PEM) * 2).decode(), "give one"),
        (base64.b64encode(request().public_bytes(Encoding.DER)).decode(), "give one"),
    ],
)
def test_what_is_no_request_is_refused(asked: str, reason: str) -> None:
    with pytest.raises(RequestRefused, match=reason):
        key_of(asked, JANE)


GOOD = request().public_bytes(Encoding.DER)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(GOOD) - 1), change=st.integers(1, 255))
def test_a_damaged_request_gives_no_other_key(place: int, change: int) -> None:
    der = bytearray(GOOD)
    der[place] ^= change
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE REQUEST-----\n"
    try:
        key = key_of(base64.b64encode(pem).decode(), JANE)
    except RequestRefused:
        return
    assert key == USER.public_key()
