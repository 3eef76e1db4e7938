"""A user's certificate signing request (PKCS#10, RFC 2986): whether its key is good, its holder has it, and it asks for
nothing.

A request proves that somebody holds a key. Whom the certificate names is known from elsewhere: from who sends the
request. So its subject is empty or names exactly that user, and what it asks beyond (other names, extensions) is
refused, never merged.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from auth.authenticator import AuthenticationFailed
from auth.identity import Identity
from auth.pki import UID, SubjectKey
from auth.x509 import names

_MAX_TEXT: Final = 16_384
_RSA_BITS: Final = range(2048, 8193)
_RSA_EXPONENT: Final = 65_537
_NAMED: Final = frozenset((NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, UID))
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)


class RequestRefused(ValueError):
    """No certificate comes of this request; the text is fit for its sender, and says what to do."""


def key_of(text: str, identity: Identity) -> SubjectKey:
    """The key that a request is for: its sender has authenticated as `identity`. `text` is PEM in base64, as in
    Kubernetes' CertificateSigningRequest.

    :raises RequestRefused: it is malformed, its key is weak or not its holder's, or it asks for more than its
        sender is.
    """
    try:
        request = x509.load_pem_x509_csr(_pem(text))
        key = _good(request)
        _check_asked(request, identity)
    except _UNREADABLE as error:
        if isinstance(error, RequestRefused):
            raise
        raise RequestRefused("spec.request is no certificate signing request: give its PEM in base64") from None
    return key


def _pem(text: str) -> bytes:
    if len(text) > _MAX_TEXT:
        raise RequestRefused(f"spec.request is longer than {_MAX_TEXT} characters")
    try:
        pem = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestRefused("spec.request is not base64") from None
    if pem.count(b"-----BEGIN ") != 1:
        raise RequestRefused("spec.request is no certificate signing request: give one, in PEM, in base64")
    return pem


def _good(request: x509.CertificateSigningRequest) -> SubjectKey:
    """The key's size is looked at first: a huge one would cost us, not its sender."""
    key = request.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in _RSA_BITS or key.public_numbers().e != _RSA_EXPONENT:
            raise RequestRefused("an RSA key needs 2048 to 8192 bits, and 65537 as its exponent")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            raise RequestRefused("of elliptic curves, P-256 and P-384 are taken")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise RequestRefused("the key is of no kind that is taken: RSA, P-256, P-384, Ed25519")
    weak = not isinstance(key, ed25519.Ed25519PublicKey) and not isinstance(request.signature_hash_algorithm, _HASHES)
    if weak or not request.is_signature_valid:
        raise RequestRefused("the request is not signed by its own key, with SHA-256 or better")
    return key


def _check_asked(request: x509.CertificateSigningRequest, identity: Identity) -> None:
    if len(request.extensions):
        raise RequestRefused("the request asks for extensions: leave them out, subject alternative names too")
    subject = request.subject
    if not list(subject):
        return
    try:
        users, groups, uids = (names(subject, oid) for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, UID))
    except AuthenticationFailed:
        raise RequestRefused("the request's subject is not text: leave it empty") from None
    only = all(attribute.oid in _NAMED for attribute in subject)
    uid = [identity.uid] if identity.uid else []
    if not only or users != [identity.user] or sorted(groups) != sorted(set(identity.groups)) or uids != uid:
        raise RequestRefused(
            "the request's subject is not you, as the gateway knows you: leave it empty,"
            " and the certificate will name you"
        )
