"""Who a replica is to the others: certificates of an authority that all of one installation share, and nobody else.

Each replica signs for itself (whoever has the authority's key is a replica). Certificates are short-lived and made anew
in time; names in DNS say nothing between replicas, whose addresses change: a URI names the identity.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from auth.pki import CertificateAuthority
from tunnel.errors import TunnelError

AUTHORITY: Final = "kulvert-replicas"
"""The authority's own name."""
LIFETIME: Final = 86_400.0
"""Seconds that a certificate is good for; half of that later there is a new one."""
LOOK: Final = 5.0
"""Seconds between looks at the clock."""
SET_BACK: Final = 60.0
"""Seconds that the clock may go back before certificates are made anew: for others those of before are not valid yet.
"""
_IDENTITY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_URI: Final = "kulvert://replica/"
_LONGEST_NAME: Final = 64
_PURPOSES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class PeerIdentityError(TunnelError):
    """A certificate, an authority or an identity is not one of a replica; the text says why, and holds no key."""


class PeerIdentity:
    """Contexts for both ends of connections between replicas. They stay the same objects when certificates change."""

    def __init__(self, authority: bytes, identity: str, wall: Callable[[], float], lifetime: float = LIFETIME) -> None:
        """`authority`: certificate and key (PEM), as `CertificateAuthority.to_pem` gives them. Raises
        PeerIdentityError.
        """
        self.identity = identity
        self._authority = authority_of(authority)
        self._wall = wall
        self._lifetime = lifetime
        self._uri = replica_uri(identity)
        self.server = _context(ssl.PROTOCOL_TLS_SERVER, self._authority)
        self.server.num_tickets = 0  # a session resumed would outlive its certificate
        self.client = _context(ssl.PROTOCOL_TLS_CLIENT, self._authority)
        self._made = self._due = 0.0
        self.renew()

    def renew(self) -> None:
        """New certificates, for connections from now on."""
        self._made = self._wall()
        self._due = self._made + self._lifetime / 2
        for context, purpose in zip((self.server, self.client), _PURPOSES, strict=True):
            _show(context, self._issue(purpose))

    async def run(self) -> None:
        """Renew in time, until cancelled. By the wall's clock: a machine may have slept, or its clock be set."""
        while True:
            await asyncio.sleep(LOOK)
            if not self._made - SET_BACK <= self._wall() < self._due:
                self.renew()

    def _issue(self, purpose: x509.ObjectIdentifier) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"kulvert:replica:{self.identity}"[:_LONGEST_NAME]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(self._uri)])
        certificate = self._authority.sign(key.public_key(), subject, purpose, self._wall(), self._lifetime, names)
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return certificate.public_bytes(encoding) + key.private_bytes(encoding, form, serialization.NoEncryption())


def replica_uri(identity: str) -> str:
    """The URI among a replica's alternative names. Raises PeerIdentityError for what is no identity."""
    if not _IDENTITY.fullmatch(identity):
        raise PeerIdentityError("a replica's identity has letters, digits, '.', '_' and '-' only, at most 253 of them")
    return _URI + identity


def named_by(der: bytes) -> str:
    """The identity in a certificate that TLS has verified against the replicas' authority. Raises PeerIdentityError."""
    try:
        extensions = x509.load_der_x509_certificate(der).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except Exception:  # the library raises of many kinds
        raise PeerIdentityError("the certificate is no replica's") from None
    if len(list(names)) != 1 or len(uris) != 1 or not uris[0].startswith(_URI):
        raise PeerIdentityError("the certificate is no replica's")
    identity = uris[0].removeprefix(_URI)
    if not _IDENTITY.fullmatch(identity):
        raise PeerIdentityError("the certificate is no replica's")
    return identity


def authority_of(pem: bytes) -> CertificateAuthority:
    """The authority in a PEM of its certificate and its key; others behind it count, too. Raises PeerIdentityError."""
    try:
        certificate, *others = x509.load_pem_x509_certificates(pem)
        key = serialization.load_pem_private_key(pem, password=None)
    except ValueError:
        raise PeerIdentityError("the replicas' authority is not a certificate and its private key (PEM)") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise PeerIdentityError("the certificate and the key of the replicas' authority do not belong together")
    return CertificateAuthority(certificate, key, tuple(others))


def _context(protocol: int, authority: CertificateAuthority) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the URI is checked instead: see `named_by`
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.trusted_pem.decode())
    return context


def _show(context: ssl.SSLContext, pem: bytes) -> None:
    """`ssl` reads files only: this one has no name, is on no disk, and nobody else can open it."""
    with os.fdopen(os.memfd_create("kulvert-replica"), "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
