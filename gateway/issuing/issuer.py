"""Signs users' credentials, and writes each down before it is handed out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509

from auth.authenticator import AuthenticationFailed
from auth.authorityfile import Now
from auth.csr import key_of
from auth.identity import Identity
from auth.tokens import LONGEST, MAX_BYTES
from auth.x509 import credential_id_of, identity_of
from gateway.issuing.issuance import NotIssued, Term, check_caller, has_record, own_extra, term
from gateway.issuing.settings import CertificatesConfig, TokensConfig
from gateway.issuing.store import CERTIFICATE, TOKEN, IssuedCredential, RevocationStore
from gateway.issuing.tokenkeys import TokenKeys

_MAX_CERTIFICATE = 16_384


@dataclass(frozen=True, slots=True)
class Issuer:
    """All methods take who has authenticated, and name that one. `authority` gives the platform's, as it is now.

    :raises NotIssued: from all of them: the caller gets no such credential.
    :raises RegistryError: from all of them, as `RevocationStore.record` says.
    """

    authority: Now = field(repr=False)
    keys: TokenKeys
    store: RevocationStore
    certificates: CertificatesConfig
    tokens: TokensConfig
    randomness: Callable[[int], bytes] = field(repr=False)

    def certificate(self, identity: Identity, request: str, asked: float, now: float) -> x509.Certificate:
        """A certificate for the key of a signing request. :raises RequestRefused: see `auth.csr`."""
        check_caller(identity)
        if own_extra(identity):
            raise NotIssued("you carry extra attributes, which a certificate cannot hold: ask for a token")
        key = key_of(request, identity)
        granted = self._term(identity, asked, self.certificates.lifetime, now)
        try:
            lifetime = granted.expires - now
            made = self.authority().certify(key, identity.user, identity.groups, identity.uid, now, lifetime)
        except ValueError as error:
            raise NotIssued(f"a certificate cannot hold your name and groups ({error}): ask for a token") from None
        _check_made(made, identity)
        serial = f"{made.serial_number:x}"
        until = made.not_valid_after_utc.timestamp()
        self._record(identity, CERTIFICATE, credential_id_of(made), serial, Term(until, granted.renewable_until), now)
        return made

    def token(self, identity: Identity, asked: float, now: float) -> tuple[str, float]:
        """A bearer token, and when it ends."""
        check_caller(identity)
        granted = self._term(identity, asked, min(self.tokens.lifetime, LONGEST), now)
        jti = self.randomness(16).hex()
        signed = self.keys.signer(now).issue(
            identity.user, identity.groups, identity.uid, jti, now, granted.expires - now, own_extra(identity)
        )
        if len(signed) > MAX_BYTES:
            raise NotIssued("a token cannot hold your groups and attributes: they are too many")
        self._record(identity, TOKEN, f"JTI={jti}", jti, granted, now)
        return signed, float(int(granted.expires))

    def _term(self, identity: Identity, asked: float, lifetime: float, now: float) -> Term:
        shown = self.store.find(identity.credential_id) if has_record(identity) else None
        return term(identity, shown, asked, lifetime, self.certificates.renewable_for, now)

    def _record(self, identity: Identity, kind: str, name: str, value: str, granted: Term, now: float) -> None:
        made = IssuedCredential(
            name,
            kind,
            value,
            identity.user,
            float(int(now)),
            granted.expires,
            granted.renewable_until,
            identity.credential_id,
        )
        self.store.record(made, recorded_parent=has_record(identity), now=now)


def _check_made(made: x509.Certificate, identity: Identity) -> None:
    """It names exactly its user when it is read again, or nobody gets it."""
    try:
        read = identity_of(made)
    except (AuthenticationFailed, ValueError):
        raise NotIssued("a certificate cannot hold your name and groups: ask for a token") from None
    same = (read.user, set(read.groups), read.uid) == (identity.user, set(identity.groups), identity.uid)
    if not same or len(made.tbs_certificate_bytes) > _MAX_CERTIFICATE:
        raise NotIssued("a certificate cannot hold your name and groups: ask for a token")
