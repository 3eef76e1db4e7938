"""Service accounts of the hub, by its own word: a TokenReview says whose token it is, and until when.

Only tokens that claim one of the hub's issuers, and an audience of ours, are sent there: everybody else's stay secret
from it. The issuer alone says nothing, since managed clusters call theirs the same; but what their own API servers take
is for other audiences. What the hub answers is believed only with an audience of ours in it (KEP-1205: an authenticator
that knows no audiences says none).
Source: kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt

from auth.asking import Asking
from auth.authenticator import AuthenticationFailed
from auth.identity import Credentials, Identity
from tunnel.impersonate import CREDENTIAL_ID

SOURCE: Final = "hub"
_MAX_BYTES: Final = 16_384


@dataclass(frozen=True, slots=True)
class Question:
    """One token to be reviewed. Its text is in no repr."""

    token: str = field(repr=False)


Review = Callable[[str], Awaitable[Mapping[str, Any]]]
"""Asks the hub about a token; gives the status of the TokenReview. Raises AuthenticationUnavailable."""


class TokenReviewAuthenticator:
    """Knows bearer tokens of the hub's `issuers`. `audiences` are those that `review` asks for."""

    def __init__(
        self,
        review: Review,
        issuers: Callable[[], frozenset[str]],
        audiences: frozenset[str],
        clock: Callable[[], float],
    ) -> None:
        """`issuers` are those of the hub, as far as it has told them."""

        async def ask(question: Question) -> Mapping[str, Any]:
            return await review(question.token)

        self._issuers = issuers
        self._audiences = audiences
        self._asking: Asking[Question, Mapping[str, Any]] = Asking(ask, clock)

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """See `Authenticator`."""
        token = credentials.bearer
        if token is None or len(token) > _MAX_BYTES:
            return None
        claims = _claims(token)
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in self._issuers():
            return None
        if self._audiences.isdisjoint(_texts(claims.get("aud"))):
            raise AuthenticationFailed(f"the token is not for the audience {' or '.join(sorted(self._audiences))}")
        expires = claims.get("exp")
        if not isinstance(expires, int | float) or isinstance(expires, bool):
            raise AuthenticationFailed("a token of the hub without an end is not taken: use a bound one (TokenRequest)")
        if expires <= now:
            raise AuthenticationFailed("the token has expired")  # not worth a question
        return self._identity(self._asking.get(Question(token)), token, claims, float(expires))

    def _identity(self, status: Mapping[str, Any], token: str, claims: Mapping[str, Any], expires: float) -> Identity:
        if status.get("authenticated") is not True:
            raise AuthenticationFailed("the hub does not know this token, or not for this audience")
        if self._audiences.isdisjoint(status.get("audiences") or ()):
            raise AuthenticationFailed(f"the token is not for the audience {' or '.join(sorted(self._audiences))}")
        user = status.get("user") or {}
        name, groups, uid = user.get("username"), user.get("groups") or [], user.get("uid") or ""
        if not isinstance(name, str) or not name or not all(isinstance(group, str) for group in groups):
            raise AuthenticationFailed("the hub's review names nobody")
        credential_id = _credential_id(user.get("extra") or {}, token, claims)
        # What else the hub adds speaks of its own pods and nodes, and means nothing in another cluster.
        extra = ((CREDENTIAL_ID, (credential_id,)),)
        return Identity(name, tuple(dict.fromkeys(groups)), str(uid), extra, SOURCE, credential_id, expires)


def _claims(token: str) -> Mapping[str, Any]:
    """What the token says of itself, without trust: whose business it is."""
    try:
        return jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return {}


def _texts(value: object) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _credential_id(extra: Mapping[str, Any], token: str, claims: Mapping[str, Any]) -> str:
    told = extra.get(CREDENTIAL_ID)
    if isinstance(told, list) and told and isinstance(told[0], str):
        return told[0]
    jti = claims.get("jti")
    return f"JTI={jti}" if isinstance(jti, str) and jti else "SHA256=" + hashlib.sha256(token.encode()).hexdigest()
