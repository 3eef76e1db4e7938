"""Certificates, requests and revocation lists that an authority signs, good ones and others."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from auth.identity import Credentials
from auth.pki import CertificateAuthority, Issued

NOW = 1_800_000_000.0
USER = ec.generate_private_key(ec.SECP256R1())
_KEEP: Any = object()


def loaded(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.certificate)


def der(issued: Issued) -> bytes:
    return loaded(issued).public_bytes(Encoding.DER)


def shown(issued: Issued | x509.Certificate) -> Credentials:
    certificate = loaded(issued) if isinstance(issued, Issued) else issued
    return Credentials(None, certificate.public_bytes(Encoding.DER))


def crl(
    authority: CertificateAuthority,
    serials: Iterable[int] = (),
    *,
    made: float = NOW,
    until: float = NOW + 3600,
    critical: x509.ExtensionType | None = None,
    signer: CertificateAuthority | None = None,
) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(datetime.fromtimestamp(made, UTC)).next_update(datetime.fromtimestamp(until, UTC))
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(datetime.fromtimestamp(made, UTC)).build())
    if critical is not None:
        builder = builder.add_extension(critical, critical=True)
    return builder.sign((signer or authority).key, hashes.SHA256())


def request(
    subject: x509.Name | None = None, key: Any = USER, extension: Any = None, algorithm: Any = _KEEP
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256() if algorithm is _KEEP else algorithm)


def text(asked: x509.CertificateSigningRequest) -> str:
    return base64.b64encode(asked.public_bytes(Encoding.PEM)).decode()


def name(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
