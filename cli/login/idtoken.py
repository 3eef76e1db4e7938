"""Whether an ID token is what was asked for: this issuer's, for this client, from this attempt, signed, and alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from jwt.types import Options

from cli.failures import Failed
from cli.login.address import plain

ALGORITHMS: Final = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
)
"""By public keys alone: neither `none`, nor a secret's HS256."""
LEEWAY: Final = 60.0
MOST: Final = 16_384
"""Bytes. A gateway refuses longer heads than that."""
_NAMES = ("preferred_username", "email", "name", "sub")
_OPTIONS: Final[Options] = {
    "require": ["iss", "aud", "sub", "exp", "iat"],
    "verify_exp": False,  # the time is passed in
    "verify_iat": False,
    "verify_nbf": False,
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What it must say. A refreshed token need not repeat the nonce, but it must be the same person's."""

    issuer: str
    client_id: str
    nonce: str | None = field(default=None, repr=False)
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """`lifetime`: seconds that it has left by the issuer's clock; `name`: how to call its user."""

    subject: str
    name: str
    lifetime: float


class UnknownKey(Failed):
    """It is signed with a key that the issuer's JWKS does not have: it may have changed meanwhile."""


def check(token: str, jwks: Mapping[str, Any], expected: Expected, now: float) -> Checked:
    """`now` is the issuer's time. :raises Failed: it is not what was asked for."""
    claims = _verified(token, jwks, expected)
    audience, azp = claims["aud"], claims.get("azp")
    if (isinstance(audience, list) and len(audience) > 1 and azp is None) or azp not in (None, expected.client_id):
        raise _refused("is for another client too")
    if expected.nonce is not None and claims.get("nonce") != expected.nonce:
        raise _refused("is not from this sign-in (its nonce is another)")
    if expected.subject is not None and claims["sub"] != expected.subject:
        raise _refused("is another user's")
    return Checked(str(claims["sub"]), _name(claims), _lifetime(claims, now))


def _verified(token: str, jwks: Mapping[str, Any], expected: Expected) -> Mapping[str, Any]:
    if not token or len(token) > MOST:
        raise _refused("is missing" if not token else f"is longer than {MOST} bytes")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise _refused("is no JWT") from None
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise _refused("is not signed with a public key")
    key = _key(jwks, header.get("kid"), algorithm)
    try:
        return jwt.decode(
            token, key, [algorithm], _OPTIONS, audience=expected.client_id, issuer=expected.issuer
        )  # fmt: skip
    except jwt.InvalidAudienceError:
        raise _refused("is for another client: check --client-id") from None
    except jwt.InvalidIssuerError:
        raise _refused("is another issuer's") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise _refused("is wrongly signed, or lacks a claim") from None


def _key(jwks: Mapping[str, Any], kid: object, algorithm: str) -> jwt.PyJWK:
    """The one key with that id; without an id, the only one there is."""
    listed = jwks.get("keys")
    found = [
        one
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and one.get("use", "sig") == "sig" and kid in (None, one.get("kid"))
    ]
    if len(found) != 1:
        raise UnknownKey("the issuer's ID token is signed with a key that the issuer does not publish: try again")
    if found[0].get("kty") == "oct" or found[0].get("alg", algorithm) != algorithm:
        raise _refused("is signed by another algorithm than its key's")
    try:
        return jwt.PyJWK(found[0], algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        raise _refused("is signed with a key that makes no sense") from None


def _lifetime(claims: Mapping[str, Any], now: float) -> float:
    expires, not_before = claims["exp"], claims.get("nbf", 0)
    for value in (expires, not_before):
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
            raise _refused("has times that are none")
    if not_before > now + LEEWAY:
        raise _refused("is not valid yet: check this machine's clock")
    if expires <= now:
        raise _refused("has expired already: check this machine's clock")
    return float(expires) - now


def _name(claims: Mapping[str, Any]) -> str:
    return next((text for name in _NAMES if (text := plain(claims.get(name), 128))), "?")


def _refused(why: str) -> Failed:
    return Failed(f"the issuer's ID token {why}; it is not used")
