"""From verified claims to a user, as kube-apiserver maps them, and as strictly: a claim of another type than the
mapping needs refuses the token. Times and audience are checked here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from auth.authenticator import AuthenticationFailed
from auth.identity import Identity
from auth.oidc.config import JwtIssuer
from tunnel.impersonate import CREDENTIAL_ID, Extra

SKEW: Final = 10.0
"""Seconds by which the issuer's clock may differ from ours."""

_MOST_GROUPS: Final = 1_000
_LONGEST_JTI: Final = 256


def check_times(claims: Mapping[str, Any], now: float) -> float:
    """Gives the moment (epoch seconds) from which on the token is refused.

    :raises AuthenticationFailed: that is already past, it has not begun yet, or it is not told.
    """
    if "exp" not in claims:
        raise AuthenticationFailed("the token has no exp: one that never expires is not taken")
    end = _time(claims, "exp") + SKEW
    if now >= end:
        raise AuthenticationFailed("the token has expired: log in again")
    for claim in ("nbf", "iat"):
        if claim in claims and _time(claims, claim) > now + SKEW:
            raise AuthenticationFailed(f"the token is not valid yet ({claim}): compare the clocks")
    return end


def check_audience(claims: Mapping[str, Any], issuer: JwtIssuer) -> None:
    """:raises AuthenticationFailed: none of the issuer's configured audiences is the token's."""
    told = claims.get("aud")
    found = [told] if isinstance(told, str) else told
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise AuthenticationFailed("the token's aud is neither text nor a list of texts")
    if not set(found) & set(issuer.audiences):
        raise AuthenticationFailed("the token is for another audience")


def check_required(claims: Mapping[str, Any], issuer: JwtIssuer) -> None:
    """:raises AuthenticationFailed: a claim is not what a claimValidationRule wants; the text does not tell what."""
    for name, value in issuer.required:
        if name not in claims or not isinstance(claims[name], str) or claims[name] != value:
            raise AuthenticationFailed(f"the token's {name} is not what the configuration requires")


def identity_of(claims: Mapping[str, Any], issuer: JwtIssuer, digest: str, expires: float) -> Identity:
    """The user. `digest` stands for the token where it has no `jti`.

    :raises AuthenticationFailed: a claim that the configuration maps is missing, or of another type.
    """
    jti = claims.get("jti")
    named = isinstance(jti, str) and 0 < len(jti) <= _LONGEST_JTI
    credential_id = f"JTI={jti}" if named else f"JWTSHA256={digest}"
    return Identity(
        user=_user(claims, issuer),
        groups=_groups(claims, issuer),
        uid=_text(claims, issuer.uid, "uid") if issuer.uid else "",
        extra=(*_extra(claims, issuer), (CREDENTIAL_ID, (credential_id,))),
        source=f"oidc:{issuer.url}",
        credential_id=credential_id,
        expires=expires,
    )


def _user(claims: Mapping[str, Any], issuer: JwtIssuer) -> str:
    claim = issuer.username.claim
    name = _text(claims, claim, "user name")
    if not name:
        raise AuthenticationFailed(f"the token's {claim} is empty, and is the user's name")
    # An issuer that does not tell is believed, as kube-apiserver does; one that tells anything but true is not.
    if claim == "email" and claims.get("email_verified", True) is not True:
        raise AuthenticationFailed("the token's email is not verified, and is the user's name")
    return issuer.username.prefix + name


def _groups(claims: Mapping[str, Any], issuer: JwtIssuer) -> tuple[str, ...]:
    if issuer.groups is None:
        return ()
    claim = issuer.groups.claim
    elsewhere = claims.get("_claim_names")
    if claim not in claims and isinstance(elsewhere, dict) and claim in elsewhere:
        raise AuthenticationFailed(
            f"the token's {claim} must be fetched elsewhere (_claim_names), which is not done here"
        )
    groups = _texts(claims.get(claim), claim)
    if len(groups) > _MOST_GROUPS:
        raise AuthenticationFailed(f"the token has more than {_MOST_GROUPS} {claim}")
    return tuple(issuer.groups.prefix + group for group in groups)


def _extra(claims: Mapping[str, Any], issuer: JwtIssuer) -> Extra:
    missing = [one.claim for one in issuer.extra if one.claim not in claims]
    if missing:
        raise AuthenticationFailed(f"the token lacks {', '.join(missing)}")
    found = ((one.key, _texts(claims[one.claim], one.claim)) for one in issuer.extra)
    return tuple((key, values) for key, values in found if values)


def _text(claims: Mapping[str, Any], claim: str, meaning: str) -> str:
    if claim not in claims:
        raise AuthenticationFailed(f"the token lacks {claim}, which is the {meaning}")
    if not isinstance(claims[claim], str):
        raise AuthenticationFailed(f"the token's {claim} is not text, and is the {meaning}")
    return str(claims[claim])


def _texts(value: object, claim: str) -> tuple[str, ...]:
    """A text or a list of them, without empty and repeated ones; null is nothing."""
    found = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise AuthenticationFailed(f"the token's {claim} is neither text nor a list of texts")
    return tuple(dict.fromkeys(one for one in found if one))


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise AuthenticationFailed(f"the token's {name} is not a time")
    return float(value)
