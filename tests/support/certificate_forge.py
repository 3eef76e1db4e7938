"""Client certificates that are wrong in one way each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from auth.pki import CertificateAuthority, Issued

HOUR = 3600.0
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)


def forged(
    authority: CertificateAuthority,
    users: Iterable[str],
    groups: Iterable[str],
    now: float,
    *,
    purposes: Sequence[x509.ObjectIdentifier] = CLIENT,
    is_authority: bool = False,
    unknown_critical: bool = False,
) -> Issued:
    """Signed by the authority's own key, whatever it says."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    names += [x509.NameAttribute(NameOID.COMMON_NAME, user) for user in users]
    builder = x509.CertificateBuilder(authority.certificate.subject, x509.Name(names), key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(datetime.fromtimestamp(now - HOUR, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(now + HOUR, UTC))
    builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if unknown_critical:
        odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57683.99"), b"\x05\x00")
        builder = builder.add_extension(odd, critical=True)
    pem = builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return Issued(pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def revocation_list(
    authority: CertificateAuthority, revoked: Iterable[Issued], now: float, lifetime: float = 24 * HOUR
) -> bytes:
    """PEM. With a negative lifetime it has lapsed."""
    made = now - 48 * HOUR
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(datetime.fromtimestamp(made, UTC))
    builder = builder.next_update(datetime.fromtimestamp(now + lifetime, UTC))
    for one in revoked:
        serial = x509.load_pem_x509_certificate(one.certificate).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(datetime.fromtimestamp(made, UTC)).build())
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)
