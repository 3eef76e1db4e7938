"""A key of the user's own, made on this machine and kept here: the gateway sees only what it signs."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cli.failures import Failed

PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class ClientKey:
    """An EC P-256 key, and its request for a certificate. Its subject is empty: the gateway says who its user is."""

    request: bytes
    key: bytes = field(repr=False)


def new_key() -> ClientKey:
    """A fresh one, for each certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8
    return ClientKey(request.public_bytes(PEM), key.private_bytes(PEM, form, serialization.NoEncryption()))


def good_until(chain: bytes, key: bytes, now: float) -> float:
    """The end of a certificate that the gateway gave for the key (epoch seconds).

    :raises Failed: it is not for this key, or not good now.
    """
    try:
        certificate = x509.load_pem_x509_certificates(chain)[0]
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, IndexError):
        raise Failed("the gateway's answer holds no certificate: its administrator must look") from None
    if certificate.public_key() != private.public_key():
        raise Failed("the gateway's certificate is for another key: it is not used")
    until = certificate.not_valid_after_utc.timestamp()
    if not certificate.not_valid_before_utc.timestamp() <= now < until:
        raise Failed("the gateway's certificate is not valid now: check this machine's clock")
    return until
