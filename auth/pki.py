"""The platform's own certificate authority: it signs the server's certificate and short-lived ones of
users.

Who it is for: `kulvert up` and single servers; larger platforms bring a CA. Agents get their certificates
from an authority of their own (make another one under another name): a certificate of one kind must not
pass for the other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from auth.statefile import StateFileError, create_private, read_private

SubjectKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
CA_LIFETIME = 10 * 365 * 86400.0
BACKDATED = 300.0
"""Seconds: clocks of clients may be behind."""
CA_BACKDATED = 86400.0
"""The same of an authority. What it signs is made anew when a clock that was ahead is set right; the authority is not,
and what it has signed counts nowhere before its own time comes. A day is more than a wrong time zone; it lets nobody
in, since nothing can have been signed by a key that was not there.
"""
_LONGEST = 64  # ub-organization-name, RFC 5280, appendix A
UID = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")
"""A subject's UID, as apimachinery's asn1.X509UID."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, both as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """An EC P-256 authority. Its certificate is public, its key stays in this object and its file. `others` are those
    behind it in that file, which sign nothing (`auth.authorityfile`): what they have signed counts as well.
    """

    certificate: x509.Certificate = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    others: tuple[x509.Certificate, ...] = field(default=(), repr=False)

    @classmethod
    def create(cls, name: str, now: float, lifetime: float = CA_LIFETIME) -> CertificateAuthority:
        """A new authority that signs leaves only (path length 0)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, subject, key.public_key(), now - CA_BACKDATED, now + lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(authority=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load_or_create(cls, path: Path, name: str, now: float) -> CertificateAuthority:
        """The authority kept in `path` (certificate and key in one file, 0600, so that they cannot come
        apart).

        :raises StateFileError: the file is open to others, damaged, or its certificate has expired.
        """
        if (pem := read_private(path)) is None:
            create_private(path, cls.create(name, now).to_pem())
            pem = read_private(path) or b""  # another process may have been first: what counts is the file
        try:
            authority = cls.read(pem)
        except ValueError as error:
            raise StateFileError(f"{path} {error}") from None
        if authority.certificate.not_valid_after_utc.timestamp() <= now:
            raise StateFileError(f"the authority in {path} has expired: move the file away to make a new one")
        return authority

    @classmethod
    def read(cls, pem: bytes) -> CertificateAuthority:
        """What `to_pem` wrote, or several of that. :raises ValueError: it is something else."""
        try:
            certificate, *others = x509.load_pem_x509_certificates(pem)
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            raise ValueError("does not hold a certificate and a private key") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("holds a certificate and a key that do not belong together")
        return cls(certificate, key, tuple(others))

    def to_pem(self) -> bytes:
        """Certificate and private key: for the authority's own file only."""
        return self.certificate_pem + _key_pem(self.key)

    @property
    def certificate_pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """Whose signatures count."""
        return (self.certificate, *self.others)

    @property
    def trusted_pem(self) -> bytes:
        """What clients trust."""
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in self.trusted)

    def issue_server(self, names: Iterable[str], now: float, lifetime: float) -> Issued:
        """A server's certificate for host names and IP addresses. :raises ValueError: where there is no name."""
        hosts = list(names)
        if not hosts:
            raise ValueError("a server's certificate needs at least one name")
        alternatives = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kulvert")])
        return self._issue(subject, ExtendedKeyUsageOID.SERVER_AUTH, now, lifetime, alternatives)

    def issue_client(self, user: str, groups: Iterable[str], now: float, lifetime: float) -> Issued:
        """A user's certificate: CN = user, O = groups. :raises ValueError: where a name is empty or over 64
        characters.
        """
        return self._issue(_subject(user, groups, ""), ExtendedKeyUsageOID.CLIENT_AUTH, now, lifetime)

    def certify(
        self, key: SubjectKey, user: str, groups: Iterable[str], uid: str, now: float, lifetime: float
    ) -> x509.Certificate:
        """A user's certificate for a key that the user holds. Whoever calls it has authenticated the user, and seen
        that the key is good (`auth.csr`).

        :raises ValueError: as for `issue_client`.
        """
        subject = _subject(user, groups, uid)
        return self.sign(key, subject, ExtendedKeyUsageOID.CLIENT_AUTH, now, lifetime, None)

    def _issue(
        self,
        subject: x509.Name,
        purpose: x509.ObjectIdentifier,
        now: float,
        lifetime: float,
        alternatives: x509.SubjectAlternativeName | None = None,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.sign(key.public_key(), subject, purpose, now, lifetime, alternatives)
        return Issued(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))

    def sign(
        self,
        key: SubjectKey,
        subject: x509.Name,
        purpose: x509.ObjectIdentifier,
        now: float,
        lifetime: float,
        alternatives: x509.SubjectAlternativeName | None,
    ) -> x509.Certificate:
        """A leaf for whom the caller has decided on; none outlives the authority."""
        until = min(now + lifetime, self.certificate.not_valid_after_utc.timestamp())
        builder = _builder(subject, self.certificate.subject, key, now - BACKDATED, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def _subject(user: str, groups: Iterable[str], uid: str) -> x509.Name:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    for group in groups:
        if not 0 < len(group) <= _LONGEST:  # the library checks common names alone
            raise ValueError(f"a group's name has 1 to {_LONGEST} characters")
        names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    if uid:
        names.append(x509.NameAttribute(UID, uid))
    return x509.Name(names)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: SubjectKey, begins: float, until: float
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(datetime.fromtimestamp(begins, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(until, UTC))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
