"""Users by the tokens of OIDC issuers (OpenID Connect Core 1.0, section 2; RFC 7519), read with RFC 8725 in mind.

A token's `iss` chooses the issuer, to the letter, and everything else about the token must then be right: nobody else
is asked about it. No key, address or algorithm is taken from the token itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from auth.authenticator import AuthenticationFailed
from auth.identity import Credentials, Identity
from auth.oidc.claims import check_audience, check_required, check_times, identity_of
from auth.oidc.config import AuthenticationConfiguration, JwtIssuer, KeySource
from auth.oidc.jwks import ALGORITHMS
from auth.oidc.jwkscache import IssuerKeys
from auth.oidc.jwksfetch import Fetcher, HttpFetcher
from auth.oidc.token import BadToken, Token, issuer_of, read_token


@dataclass(frozen=True, slots=True)
class _Known:
    issuer: JwtIssuer
    keys: IssuerKeys


class OidcAuthenticator:
    """Knows the tokens of the configured issuers. `run` has to run beside it, in the same loop: it fetches the keys."""

    def __init__(
        self,
        configuration: AuthenticationConfiguration,
        fetcher: Callable[[KeySource], Fetcher] = HttpFetcher,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._changed = asyncio.Event()
        self._issuers: Mapping[str, _Known] = {}
        self.replace(configuration)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the issuers' keys, a line for each; those that are known may be good for a while yet."""
        all_keys = [known.keys for known in self._issuers.values()]
        return tuple(f"the keys of the issuer {one.issuer}: {one.problem}" for one in all_keys if one.problem)

    def replace(self, configuration: AuthenticationConfiguration) -> None:
        """Goes on with another configuration. An issuer whose keys are found where they were keeps them."""
        kept = {known.issuer.keys: known.keys for known in self._issuers.values()}
        self._issuers = {
            issuer.url: _Known(issuer, kept.get(issuer.keys) or self._new_keys(issuer.keys))
            for issuer in configuration.issuers
        }
        self._changed.set()

    async def run(self) -> None:
        """Keeps all keys fresh until it is cancelled; a task for each issuer, because one may be slow."""
        tasks: dict[IssuerKeys, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                wanted = {known.keys for known in self._issuers.values()}
                for keys in tasks.keys() - wanted:
                    tasks.pop(keys).cancel()
                for keys in wanted - tasks.keys():
                    tasks[keys] = group.create_task(keys.run(), name=f"keys of {keys.issuer}")
                await self._changed.wait()

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """See `Authenticator`. The cluster does not matter."""
        text = credentials.bearer
        known = self._issuers.get(issuer_of(text) or "") if text else None
        if text is None or known is None:
            return None
        try:
            token = read_token(text)
        except BadToken as bad:
            raise AuthenticationFailed(str(bad)) from None
        if token.claims.get("iss") != known.issuer.url:  # two readers of one text; they agree, or it ends here
            raise AuthenticationFailed("the token names another issuer on a second look")
        _verify(token, known.keys, now)
        expires = check_times(token.claims, now)
        check_audience(token.claims, known.issuer)
        check_required(token.claims, known.issuer)
        return identity_of(token.claims, known.issuer, hashlib.sha256(text.encode()).hexdigest(), expires)

    def _new_keys(self, source: KeySource) -> IssuerKeys:
        return IssuerKeys(source.issuer, self._fetcher(source), self._clock)


def _verify(token: Token, keys: IssuerKeys, now: float) -> None:
    if token.algorithm not in ALGORITHMS:
        raise AuthenticationFailed("the token is signed by an algorithm that is not taken, or not at all")
    candidates = keys.current(now).named(token.kid)
    if any(key.verifies(token.algorithm, token.signed, token.signature) for key in candidates):
        return
    if not candidates or token.kid is None:
        raise keys.unknown_key(now)
    raise AuthenticationFailed("the token's signature is wrong, or its algorithm is not its key's")
