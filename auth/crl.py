"""Certificate revocation lists (RFC 5280, section 5): which serial numbers an authority has taken back.

A list speaks for the authority that has signed it, and only while it is fresh. Where the newest list of an authority
has lapsed, or is signed with another key, nobody knows what that authority has taken back: all its certificates are
refused until there is a good one. An authority without any list is not checked; a list of nobody's is not looked at,
so that the lists of an authority may outstay it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth.authenticator import AuthenticationFailed

_PEM = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.UnsupportedGeneralNameType, x509.DuplicateExtension)


class CrlError(ValueError):
    """A file holds no revocation lists that can be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """The newest list of one authority. `until` is its nextUpdate; a list that nobody has signed is never fresh."""

    name: str
    made: float
    until: float
    serials: frozenset[int] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """Lists by their authority's key."""

    lists: Mapping[bytes, RevocationList] = field(default_factory=dict)

    @classmethod
    def of(
        cls, crls: Iterable[x509.CertificateRevocationList], authorities: Iterable[x509.Certificate]
    ) -> RevocationLists:
        """Finds whose each list is. :raises CrlError: one has no end, or says less than what an authority took back."""
        given = list(crls)
        found = {_key(one): newest for one in authorities if (newest := _newest(given, one)) is not None}
        return cls(found)

    def check(self, authority: x509.Certificate, serial: int, now: float) -> None:
        """:raises AuthenticationFailed: the certificate was taken back, or nobody can say that it was not."""
        known = self.lists.get(_key(authority)) if self.lists else None
        if known is None:
            return
        if now >= known.until:
            raise AuthenticationFailed("the revocation list of the client certificate's authority has lapsed")
        if serial in known.serials:
            raise AuthenticationFailed("the client certificate has been revoked by its authority")

    def problem(self, now: float) -> str | None:
        """Whose certificates are refused for want of a good list."""
        lapsed = [one for one in self.lists.values() if now >= one.until]
        return "; ".join(map(_lapsed, lapsed)) or None


def read_crls(data: bytes) -> tuple[x509.CertificateRevocationList, ...]:
    """PEM with any number of lists, or one list in DER. :raises CrlError: it is neither."""
    try:
        if _PEM.search(data):
            return tuple(x509.load_pem_x509_crl(block + b"\n") for block in _PEM.findall(data))
        return (x509.load_der_x509_crl(data),)
    except _UNREADABLE:
        raise CrlError("no certificate revocation list: give PEM (X509 CRL), or one list in DER") from None


def _newest(crls: Iterable[x509.CertificateRevocationList], authority: x509.Certificate) -> RevocationList | None:
    named = [crl for crl in crls if crl.issuer == authority.subject]
    signed = [_read(crl) for crl in named if _signed_by(crl, authority)]
    if signed:
        return max(signed, key=lambda one: one.made)
    if named:  # of another authority of that name, or forged: this one's own is missing
        return RevocationList(authority.subject.rfc4514_string(), 0.0, float("-inf"), frozenset())
    return None


def _read(crl: x509.CertificateRevocationList) -> RevocationList:
    name = crl.issuer.rfc4514_string()
    try:
        partial = any(extension.critical for extension in crl.extensions)
        odd = partial or any(extension.critical for one in crl for extension in one.extensions)
        serials = frozenset(one.serial_number for one in crl)
    except _UNREADABLE:
        raise CrlError(f"the revocation list of {name} is malformed") from None
    if odd:
        raise CrlError(f"the revocation list of {name} is a delta, partial or indirect one: give the complete one")
    if crl.next_update_utc is None:
        raise CrlError(f"the revocation list of {name} does not say how long it is good (nextUpdate)")
    return RevocationList(name, crl.last_update_utc.timestamp(), crl.next_update_utc.timestamp(), serials)


def _signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type] # TypeError for other kinds
    except _UNREADABLE:
        return False


def _key(authority: x509.Certificate) -> bytes:
    return authority.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _lapsed(one: RevocationList) -> str:
    if one.until == float("-inf"):
        return f"the revocation list of {one.name} is not signed by it: its certificates are refused"
    when = datetime.fromtimestamp(one.until, UTC).strftime("%Y-%m-%dT%H:%MZ")
    return f"the revocation list of {one.name} has lapsed at {when}: its certificates are refused"
