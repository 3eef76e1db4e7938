"""Agents' certificates: issued to a key of the agent's own, for one cluster name and one cluster id, by an authority
that signs nothing else. A user's certificate is of another authority, so neither passes for the other.

Of a certificate signing request nothing counts but its key: whom the certificate names is what the platform decided.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from auth.pki import CertificateAuthority
from tunnel.enrolment import cluster_uri, common_name

AUTHORITY: Final = "kulvert-agents"
"""The authority's own name."""
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_MAX_CSR: Final = 8 * 1024
_MAX_CERTIFICATE: Final = 8 * 1024
_URI: Final = re.compile(r"kulvert://cluster/([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)/([0-9a-zA-Z-]{1,64})")
"""`tunnel.enrolment.cluster_uri`, to be read again."""
_CURVES: Final = ("secp256r1", "secp384r1")


class AgentCertificateError(ValueError):
    """A request or a certificate is not one that an agent of this platform would send; the text says why."""


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """The key of a request that is good. `fingerprint` is hex, SHA-256 of the key."""

    key: PublicKey = field(repr=False)
    fingerprint: str


@dataclass(frozen=True, slots=True)
class IssuedToAgent:
    """A new certificate: PEM, serial (lower-case hex), end (epoch seconds)."""

    pem: str
    serial: str
    expires: float


@dataclass(frozen=True, slots=True)
class Shown:
    """What a certificate says whose signature and form were right. Whether it still counts is the store's to say."""

    cluster: str
    cluster_id: str
    serial: str
    begins: float
    expires: float
    key: PublicKey = field(repr=False)


def read_request(pem: str, cluster: str, cluster_id: str) -> SigningRequest:
    """A PEM certificate signing request by an agent of this very cluster.

    :raises AgentCertificateError: it is none, it is another's, or its key is of another kind.
    """
    if len(pem) > _MAX_CSR:
        raise AgentCertificateError("the signing request is too long")
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        key, right, uris = request.public_key(), request.is_signature_valid, _uris(request.extensions)
    except Exception:  # the library raises of many kinds for what a stranger may send
        raise AgentCertificateError("the signing request is malformed") from None
    if not right:
        raise AgentCertificateError("the signing request is not signed by its own key")
    if uris != [cluster_uri(cluster, cluster_id)]:
        raise AgentCertificateError("the signing request is for another cluster than its agent says")
    if not _URI.fullmatch(uris[0]):  # before anybody is shown it, or a name is pinned to it
        raise AgentCertificateError("the cluster's name or id is malformed")
    return SigningRequest(_accepted(key), fingerprint(_accepted(key)))


def fingerprint(key: PublicKey) -> str:
    """SHA-256 of a public key, hex."""
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(*form)).hexdigest()


def issue(
    authority: CertificateAuthority, key: PublicKey, cluster: str, cluster_id: str, now: float, lifetime: float
) -> IssuedToAgent:
    """A certificate for an agent's key. :raises AgentCertificateError: the cluster's id is malformed."""
    uri = cluster_uri(cluster, cluster_id)
    if not _URI.fullmatch(uri):
        raise AgentCertificateError("the cluster's name or id is malformed")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name(cluster))])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    signed = authority.sign(key, subject, ExtendedKeyUsageOID.CLIENT_AUTH, now, lifetime, names)
    until, serial = signed.not_valid_after_utc.timestamp(), f"{signed.serial_number:x}"
    return IssuedToAgent(signed.public_bytes(serialization.Encoding.PEM).decode(), serial, until)


class Verifier:
    """Reads certificates of the agents' authorities, and remembers what it has read by digest: agents show theirs
    again.
    """

    def __init__(self, *authorities: x509.Certificate, capacity: int = 20_000) -> None:
        self._authorities = authorities
        self._capacity = capacity
        self._known: dict[bytes, Shown] = {}

    def read(self, der: bytes, now: float) -> Shown:
        """What it says. :raises AgentCertificateError: it is of no such authority, not in its time, or malformed."""
        digest = hashlib.sha256(der).digest()
        found = self._known.get(digest)
        if found is None:
            found = self._read(der)
            if len(self._known) >= self._capacity:
                del self._known[next(iter(self._known))]
            self._known[digest] = found
        if not found.begins <= now < found.expires:
            raise AgentCertificateError("the certificate is not valid at this time: check the clocks, or enrol again")
        return found

    def _read(self, der: bytes) -> Shown:
        if len(der) > _MAX_CERTIFICATE:
            raise AgentCertificateError("the certificate is too long")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # the library warns of what it will refuse one day
                certificate = x509.load_der_x509_certificate(der)
                self._check_signed(certificate)
                return _shown(certificate)
        except AgentCertificateError:
            raise
        except InvalidSignature:
            raise AgentCertificateError("the certificate is not signed by this platform's agents' authority") from None
        except Exception:  # as above: whatever a stranger's bytes may cause
            raise AgentCertificateError("the certificate is no agent's of this platform") from None

    def _check_signed(self, certificate: x509.Certificate) -> None:
        """:raises InvalidSignature: none of them has signed it."""
        for authority in self._authorities:
            with suppress(InvalidSignature):
                return certificate.verify_directly_issued_by(authority)
        raise InvalidSignature


def _shown(certificate: x509.Certificate) -> Shown:
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    uris = _uris(certificate.extensions)
    match = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if constraints.ca or list(purposes) != [ExtendedKeyUsageOID.CLIENT_AUTH] or match is None:
        raise AgentCertificateError("the certificate is no agent's")
    return Shown(
        match[1],
        match[3],
        f"{certificate.serial_number:x}",
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        _accepted(certificate.public_key()),
    )


def _uris(extensions: x509.Extensions) -> list[str]:
    """The alternative names, where all are URIs."""
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris if len(uris) == len(list(names)) else []


def _accepted(key: object) -> PublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise AgentCertificateError("the key is of another kind than P-256, P-384 or Ed25519")
