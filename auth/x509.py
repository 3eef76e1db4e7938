"""Users by x509 client certificate, as kube-apiserver knows them: CN is the user, each O a group.

TLS has verified the chain already. The signature is verified again here, against the list of authorities
that this authenticator was given, because a listener's trust store may come to hold more than the users'
authorities. Source:
kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates, RFC 5280.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from auth.authenticator import AuthenticationFailed
from auth.identity import Credentials, Identity, credential_extra

SOURCE = "x509"
_UID = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")  # apimachinery's asn1.X509UID

_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class CertificateAuthenticator:
    """Knows the certificates that one of `authorities` has signed itself; there are no intermediates."""

    authorities: tuple[x509.Certificate, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.authorities or not all(_is_authority(one) for one in self.authorities):
            raise ValueError("the users' authorities must be CA certificates, and at least one")

    @classmethod
    def from_pem(cls, bundle: bytes) -> CertificateAuthenticator:
        """Reads a PEM bundle. :raises ValueError: where one of its certificates is no CA's, or there is none."""
        return cls(tuple(x509.load_pem_x509_certificates(bundle)))

    def authenticate(self, credentials: Credentials, now: float) -> Identity | None:
        """See `Authenticator`: a certificate is this one's business where its issuer's name is that of an authority."""
        if credentials.certificate is None:
            return None
        try:
            certificate = x509.load_der_x509_certificate(credentials.certificate)
            issuers = [one for one in self.authorities if one.subject == certificate.issuer]
            if not issuers:
                return None
            _check(certificate, issuers, now)
            return _identity(certificate, credentials.certificate)
        except _UNREADABLE:
            raise AuthenticationFailed("the client certificate is malformed") from None


def _check(certificate: x509.Certificate, issuers: Iterable[x509.Certificate], now: float) -> None:
    if not _valid_at(certificate, now):
        raise AuthenticationFailed("the client certificate has expired or is not valid yet")
    if not any(_valid_at(one, now) and _signed_by(certificate, one) for one in issuers):
        raise AuthenticationFailed("the client certificate is signed by none of the valid user authorities")
    if any(one.critical and isinstance(one.value, x509.UnrecognizedExtension) for one in certificate.extensions):
        raise AuthenticationFailed("the client certificate has an unknown critical extension")
    if _is_authority(certificate):
        raise AuthenticationFailed("a CA certificate is not a user's")
    if not _for_clients(certificate):
        raise AuthenticationFailed("the client certificate is not meant for client authentication")


def _valid_at(certificate: x509.Certificate, now: float) -> bool:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin.timestamp() <= now <= end.timestamp()


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _for_clients(certificate: x509.Certificate) -> bool:
    """Extended key usage must name clientAuth: stricter than Go, which takes a certificate without it for
    any purpose.
    """
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    try:
        signs = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    except x509.ExtensionNotFound:
        signs = True
    return signs and ExtendedKeyUsageOID.CLIENT_AUTH in purposes


def _identity(certificate: x509.Certificate, der: bytes) -> Identity:
    users = _values(certificate, NameOID.COMMON_NAME)
    uids = _values(certificate, _UID)
    if len(users) != 1 or not users[0]:
        raise AuthenticationFailed("the client certificate needs exactly one common name")
    if len(uids) > 1 or "" in uids:
        raise AuthenticationFailed("the client certificate may have one UID at most")
    credential_id = "X509SHA256=" + hashlib.sha256(der).hexdigest()
    return Identity(
        user=users[0],
        groups=tuple(dict.fromkeys(_values(certificate, NameOID.ORGANIZATION_NAME))),
        uid=uids[0] if uids else "",
        extra=credential_extra(credential_id),
        source=SOURCE,
        credential_id=credential_id,
        expires=certificate.not_valid_after_utc.timestamp(),
    )


def _values(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> list[str]:
    values = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(oid)]
    if not all(isinstance(value, str) for value in values):
        raise AuthenticationFailed("the client certificate's subject is not text")
    return [str(value) for value in values]
