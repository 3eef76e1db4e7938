"""Service accounts of the hub, by its own word: a TokenReview says whose token it is, and until when.

Only tokens that claim one of the hub's issuers, and an audience of ours, are sent there: everybody else's stay secret
from it. The issuer alone says nothing, since managed clusters call theirs the same; but what their own API servers take
is for other audiences. Nor is anything sent that the hub's keys have not signed: anybody can write claims, and a forged
token must cost the hub no question, and no user his place among those who wait. A good signature is no answer yet: the
hub alone knows whether the account, and what the token is bound to, are still there. What it answers is believed only
with an audience of ours in it (KEP-1205: an authenticator that knows no audiences says none).
Source: kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from auth.asking import Asking
from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable
from auth.clustertokens import ALGORITHMS
from auth.identity import Credentials, Identity
from auth.oidc.jwks import BadKeySet, parse_key_set
from auth.oidc.jwkscache import IssuerKeys
from auth.oidc.jwksfetch import Fetched, FetchFailed
from auth.oidc.token import BadToken, Token, issuer_of, read_token
from tunnel.impersonate import CREDENTIAL_ID

SOURCE: Final = "hub"


@dataclass(frozen=True, slots=True)
class Question:
    """One token to be reviewed. Its text is in no repr."""

    token: str = field(repr=False)


Review = Callable[[str], Awaitable[Mapping[str, Any]]]
"""Asks the hub about a token; gives the status of the TokenReview. Raises AuthenticationUnavailable."""


@dataclass(frozen=True, slots=True)
class HubFetcher:
    """Gets the hub's keys, for `IssuerKeys`. `key_set` gives its JWKS document, or raises AuthenticationUnavailable."""

    key_set: Callable[[], Awaitable[bytes]]

    async def fetch(self) -> Fetched:
        """See `Fetcher`."""
        try:
            return Fetched(parse_key_set(await self.key_set()))
        except (AuthenticationUnavailable, BadKeySet) as error:
            raise FetchFailed(str(error)) from None


class TokenReviewAuthenticator:
    """Knows bearer tokens of the hub's `issuers`. `audiences` are those that `review` asks for."""

    def __init__(
        self,
        review: Review,
        issuers: Callable[[], frozenset[str]],
        keys: IssuerKeys,
        audiences: frozenset[str],
        clock: Callable[[], float],
    ) -> None:
        """`issuers` are those of the hub, as far as it has told them; `keys` has to run beside it."""

        async def ask(question: Question) -> Mapping[str, Any]:
            return await review(question.token)

        self._issuers = issuers
        self._keys = keys
        self._audiences = audiences
        self._asking: Asking[Question, Mapping[str, Any]] = Asking(ask, clock)

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """See `Authenticator`."""
        text = credentials.bearer
        issuer = issuer_of(text) if text else None
        if text is None or issuer not in self._issuers():
            return None
        try:
            token = read_token(text)
        except BadToken as bad:
            raise AuthenticationFailed(str(bad)) from None
        if token.claims.get("iss") != issuer:  # two readers of one text; they agree, or it ends here
            raise AuthenticationFailed("the token names another issuer on a second look")
        expires = self._end(token.claims, now)
        _verify(token, self._keys, now)
        return self._identity(self._asking.get(Question(text)), text, token.claims, expires)

    def _end(self, claims: Mapping[str, Any], now: float) -> float:
        """When it ends, of a token for us that is worth a question."""
        if self._audiences.isdisjoint(_texts(claims.get("aud"))):
            raise AuthenticationFailed(f"the token is not for the audience {' or '.join(sorted(self._audiences))}")
        expires = claims.get("exp")
        if not isinstance(expires, int | float) or isinstance(expires, bool):
            raise AuthenticationFailed("a token of the hub without an end is not taken: use a bound one (TokenRequest)")
        if expires <= now:
            raise AuthenticationFailed("the token has expired")
        return float(expires)

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


def _verify(token: Token, keys: IssuerKeys, now: float) -> None:
    """That one of the hub's keys has signed it. API servers name the key in each token, so an unknown name may be that
    of a new key, and a signature that no key has made is wrong.
    """
    if token.algorithm not in ALGORITHMS:
        raise AuthenticationFailed("the token is signed by an algorithm that no API server uses")
    candidates = keys.current(now).named(token.kid)
    if not candidates:
        raise keys.unknown_key(now)
    if not any(key.verifies(token.algorithm, token.signed, token.signature) for key in candidates):
        raise AuthenticationFailed("the token's signature is wrong, or its algorithm is not its key's")


def _texts(value: object) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _credential_id(extra: Mapping[str, Any], token: str, claims: Mapping[str, Any]) -> str:
    told = extra.get(CREDENTIAL_ID)
    if isinstance(told, list) and told and isinstance(told[0], str):
        return told[0]
    jti = claims.get("jti")
    return f"JTI={jti}" if isinstance(jti, str) and jti else "SHA256=" + hashlib.sha256(token.encode()).hexdigest()
