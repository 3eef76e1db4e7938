"""Kulvert's own short-lived user tokens: JWTs (RFC 7519) signed with ES256 or EdDSA, read with RFC 8725 in
mind.

A key belongs to one algorithm, and the header must name that one: `none`, and HS256 with a public key for
its secret, have no way in. `typ` and `aud` keep other JWTs of the same key from passing for a user's.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.types import Options

from auth.authenticator import AuthenticationFailed
from auth.identity import Credentials, Identity, credential_extra
from auth.revocations import CurrentRevocations, no_revocations
from tunnel.impersonate import CREDENTIAL_ID, Extra

SOURCE: Final = "kulvert-token"
TYPE: Final = "kulvert-user+jwt"
SKEW: Final = 10.0
LONGEST: Final = 86_400.0
"""Seconds that a token lives at most: so long, an old key stays known."""
MAX_BYTES: Final = 8192
_UNVERIFIED: Final[Options] = {"verify_signature": False}
_CLAIMS: Final[Options] = {
    "require": ["iss", "aud", "sub", "groups", "uid", "jti", "exp"],
    # The time is passed in, so these three are checked here and not by the library's own clock.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, the algorithm that it alone is for, and its id: a digest, so that it cannot name another key."""

    public: PublicKey = field(repr=False)

    @property
    def algorithm(self) -> str:
        """ES256 or EdDSA. :raises ValueError: for a key of another kind or curve."""
        if isinstance(self.public, ed25519.Ed25519PublicKey):
            return "EdDSA"
        if isinstance(self.public, ec.EllipticCurvePublicKey) and isinstance(self.public.curve, ec.SECP256R1):
            return "ES256"
        raise ValueError("tokens are signed with P-256 or Ed25519 keys")

    @property
    def kid(self) -> str:
        """The first 128 bits of SHA-256 over the public key (SubjectPublicKeyInfo)."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        digest = hashlib.sha256(self.public.public_bytes(serialization.Encoding.DER, form)).digest()
        return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class TokenSigner:
    """Makes user tokens. Whoever calls it has authenticated the user already."""

    issuer: str
    audience: str
    private: PrivateKey = field(repr=False)

    @property
    def verification_key(self) -> VerificationKey:
        """What an authenticator needs to know of this signer."""
        return VerificationKey(self.private.public_key())

    def issue(
        self, user: str, groups: Iterable[str], uid: str, jti: str, now: float, lifetime: float, extra: Extra = ()
    ) -> str:
        """A signed token. `jti` is unique and not secret: it names the token in audit records."""
        key = self.verification_key
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": user,
            "groups": list(groups),
            "uid": uid,
            "jti": jti,
            "iat": int(now),
            "exp": int(now + lifetime),
        }
        if extra:
            claims["extra"] = {name: list(values) for name, values in extra}
        return jwt.encode(claims, self.private, key.algorithm, headers={"kid": key.kid, "typ": TYPE})


class TokenAuthenticator:
    """Knows bearer tokens whose `iss` is this issuer's; everything else about them must then be right."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: Iterable[VerificationKey],
        max_lifetime: float = LONGEST,
        revoked: CurrentRevocations = no_revocations,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys: Mapping[str, tuple[str, PublicKey]] = {key.kid: (key.algorithm, key.public) for key in keys}
        self._max_lifetime = max_lifetime
        self._revoked = revoked

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """See `Authenticator`."""
        token = credentials.bearer
        if token is None or len(token) > MAX_BYTES or (header := self._header_if_mine(token)) is None:
            return None
        claims = self._verified(token, header)
        self._check_times(claims, now)
        identity = _identity(claims)
        # Without a time of issue it is older than anything, so that every revocation of its user means it.
        issued = _time(claims, "iat") if "iat" in claims else 0.0
        if self._revoked().token(claims["jti"], identity.user, issued):
            raise AuthenticationFailed("the token has been revoked")
        return identity

    def _header_if_mine(self, token: str) -> Mapping[str, Any] | None:
        """Reads without trust, only to see whose token it is."""
        try:
            parts = jwt.decode_complete(token, options=_UNVERIFIED)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None
        return parts["header"] if parts["payload"].get("iss") == self._issuer else None

    def _verified(self, token: str, header: Mapping[str, Any]) -> Mapping[str, Any]:
        kid = header.get("kid")
        algorithm, public = self._keys.get(kid, (None, None)) if isinstance(kid, str) else (None, None)
        if algorithm is None or public is None:
            raise AuthenticationFailed("the token is signed with a key that Kulvert does not know")
        if header.get("alg") != algorithm or header.get("typ") != TYPE:
            raise AuthenticationFailed("the token is of another type or algorithm than its key's")
        try:
            return jwt.decode(
                token,
                public,
                [algorithm],
                _CLAIMS,
                audience=self._audience,
                issuer=self._issuer,
            )
        except jwt.InvalidSignatureError:
            raise AuthenticationFailed("the token's signature is wrong") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise AuthenticationFailed("the token lacks a claim, or is for another audience") from None

    def _check_times(self, claims: Mapping[str, Any], now: float) -> None:
        expires = _time(claims, "exp")
        if now >= expires + SKEW:
            raise AuthenticationFailed("the token has expired")
        if expires > now + self._max_lifetime + SKEW:
            raise AuthenticationFailed("the token lives longer than Kulvert's tokens may")
        for claim in ("nbf", "iat"):
            if claim in claims and _time(claims, claim) > now + SKEW:
                raise AuthenticationFailed("the token is not valid yet")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise AuthenticationFailed(f"the token's {name} is not a time")
    return float(value)


def _identity(claims: Mapping[str, Any]) -> Identity:
    user, groups, uid, jti = claims["sub"], claims["groups"], claims["uid"], claims["jti"]
    if not all(isinstance(text, str) for text in (user, uid, jti)) or not user or not jti:
        raise AuthenticationFailed("the token's sub, uid and jti must be text, and only uid may be empty")
    if not isinstance(groups, list) or not all(isinstance(group, str) and group for group in groups):
        raise AuthenticationFailed("the token's groups are not a list of names")
    credential_id = "JTI=" + jti
    expires = _time(claims, "exp") + SKEW  # the same moment at which `_check_times` begins to refuse
    unique = tuple(dict.fromkeys(groups))
    extra = (*_extra(claims), *credential_extra(credential_id))
    return Identity(user, unique, uid, extra, SOURCE, credential_id, expires)


def _extra(claims: Mapping[str, Any]) -> Extra:
    extra = claims.get("extra", {})
    if not isinstance(extra, dict) or CREDENTIAL_ID in extra:
        raise AuthenticationFailed("the token's extra is not what Kulvert writes")
    if not all(isinstance(values, list) and all(isinstance(one, str) for one in values) for values in extra.values()):
        raise AuthenticationFailed("the token's extra is not lists of text")
    return tuple((name, tuple(values)) for name, values in extra.items())
