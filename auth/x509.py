"""Users by x509 client certificate, as kube-apiserver knows them: CN is the user, each O a group.

TLS has verified the chain already, when the connection was made. It is verified again here, against the list of
authorities that this authenticator was given: a listener's trust store holds more than the users' authorities, an
authority may be removed while its users are connected, and TLS asks nobody what was revoked. Source:
kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates, RFC 5280.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from auth.authenticator import AuthenticationFailed
from auth.crl import RevocationLists
from auth.identity import Credentials, Identity, credential_extra
from auth.pki import BACKDATED, UID
from auth.revocations import CurrentRevocations, no_revocations

SOURCE: Final = "x509"
UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def _nobodys_proxy(_certificate: x509.Certificate) -> bool:
    """Where no front proxy is configured."""
    return False


@dataclass(frozen=True, slots=True)
class CertificateAuthenticator:
    """Knows the certificates that one of `authorities` has signed itself; there are no intermediates. `own` are those
    of them that are Kulvert's: they date their certificates back.

    `proxied` tells a front proxy's certificate: that is nobody's here, whatever its name says.
    """

    authorities: tuple[x509.Certificate, ...] = field(repr=False)
    lists: RevocationLists = field(default=RevocationLists(), repr=False)
    revoked: CurrentRevocations = field(default=no_revocations, repr=False)
    proxied: Callable[[x509.Certificate], bool] = field(default=_nobodys_proxy, repr=False)
    own: tuple[x509.Certificate, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_authorities(self.authorities)

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """See `Authenticator`: a certificate is this one's business where its issuer's name is that of an authority."""
        if credentials.certificate is None:
            return None
        try:
            certificate = x509.load_der_x509_certificate(credentials.certificate)
            if self.proxied(certificate) or not _issuers(certificate, self.authorities):
                return None
            authority = verified(certificate, self.authorities, now)
            self.lists.check(authority, certificate.serial_number, now)
            identity = identity_of(certificate)
            self._check_revoked(certificate, identity, authority)
            return identity
        except UNREADABLE:
            raise AuthenticationFailed("the client certificate is malformed") from None

    def _check_revoked(self, certificate: x509.Certificate, identity: Identity, authority: x509.Certificate) -> None:
        issued = certificate.not_valid_before_utc.timestamp() + (BACKDATED if authority in self.own else 0.0)
        if self.revoked().certificate(certificate.serial_number, identity.user, issued):
            raise AuthenticationFailed("the client certificate has been revoked")


def check_authorities(authorities: Iterable[x509.Certificate]) -> None:
    """:raises ValueError: there is none, or one that is no CA's."""
    given = list(authorities)
    if not given or not all(is_authority(one) for one in given):
        raise ValueError("the users' authorities must be CA certificates, and at least one")


def verified(certificate: x509.Certificate, authorities: Iterable[x509.Certificate], now: float) -> x509.Certificate:
    """The authority that has signed this client certificate. Both are valid now, and the certificate is for clients.

    :raises AuthenticationFailed: something of that is not so.
    """
    if not _valid_at(certificate, now):
        raise AuthenticationFailed("the client certificate has expired or is not valid yet")
    issuers = _issuers(certificate, authorities)
    signers = [one for one in issuers if _valid_at(one, now) and _signed_by(certificate, one)]
    if not signers:
        raise AuthenticationFailed("the client certificate is signed by none of the valid user authorities")
    if any(one.critical and isinstance(one.value, x509.UnrecognizedExtension) for one in certificate.extensions):
        raise AuthenticationFailed("the client certificate has an unknown critical extension")
    if is_authority(certificate):
        raise AuthenticationFailed("a CA certificate is not a user's")
    if not _for_clients(certificate):
        raise AuthenticationFailed("the client certificate is not meant for client authentication")
    return signers[0]


def _issuers(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    return [one for one in authorities if one.subject == certificate.issuer]


def _valid_at(certificate: x509.Certificate, now: float) -> bool:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin.timestamp() <= now <= end.timestamp()


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may sign others (RFC 5280, section 4.2.1.9)."""
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


def identity_of(certificate: x509.Certificate) -> Identity:
    """Whom a certificate names. Nothing is verified here.

    :raises AuthenticationFailed: it names nobody, or several.
    """
    users = names(certificate.subject, NameOID.COMMON_NAME)
    uids = names(certificate.subject, UID)
    if len(users) != 1 or not users[0]:
        raise AuthenticationFailed("the client certificate needs exactly one common name")
    if len(uids) > 1 or "" in uids:
        raise AuthenticationFailed("the client certificate may have one UID at most")
    credential_id = credential_id_of(certificate)
    return Identity(
        user=users[0],
        groups=tuple(dict.fromkeys(names(certificate.subject, NameOID.ORGANIZATION_NAME))),
        uid=uids[0] if uids else "",
        extra=credential_extra(credential_id),
        source=SOURCE,
        credential_id=credential_id,
        expires=certificate.not_valid_after_utc.timestamp(),
    )


def credential_id_of(certificate: x509.Certificate) -> str:
    """What a certificate is called in audit records, as Kubernetes does (KEP-4193)."""
    return "X509SHA256=" + hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def names(subject: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    """The values of an attribute. :raises AuthenticationFailed: one is no text."""
    values = [attribute.value for attribute in subject.get_attributes_for_oid(oid)]
    if not all(isinstance(value, str) for value in values):
        raise AuthenticationFailed("the client certificate's subject is not text")
    return [str(value) for value in values]
