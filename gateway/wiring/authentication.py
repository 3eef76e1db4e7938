"""Who a user is: the authenticators in their order, what they are made of, and what Kulvert itself issues."""

from __future__ import annotations

import asyncio
import os
import time

from auth.authenticator import AuthenticationUnavailable, Authenticator
from auth.chain import AuthenticatorChain
from auth.clustertokens import ClusterTokenAuthenticator, PinnedKeys
from auth.oidc.authenticator import OidcAuthenticator
from auth.oidc.configfile import AuthenticationConfigFile
from auth.oidc.jwkscache import IssuerKeys
from auth.tokenreview import HubFetcher, TokenReviewAuthenticator
from gateway.certificates import Certificates
from gateway.clienttrust import ClientTrust, TrustFiles
from gateway.config import ServerConfig
from gateway.database import Database
from gateway.hub.client import Hub
from gateway.issuing.api import CertificateApi
from gateway.issuing.issuer import Issuer
from gateway.issuing.jwksapi import JwksApi
from gateway.issuing.store import RevocationStore
from gateway.issuing.tokenkeys import TokenKeys
from gateway.state import State
from gateway.wellknownapi import WellKnown
from gateway.wiring.part import Part
from gateway.wiring.tasks import Tasks

KNOWN_FOR = 10.0
"""Seconds that an authenticated credential is remembered. With what lies between two looks at live streams, a question
to an issuer, and the hub's own memory of tokens it makes the 30 that revocation may take.
"""


TIDY = 60.0
"""Seconds between two looks for issued credentials that count no more."""


class Authentication:
    """`chain` is what a request asks; `certificates` are the doors' TLS."""

    def __init__(
        self, config: ServerConfig, state: State, database: Database, pinned: PinnedKeys, hub: Hub | None, now: float
    ) -> None:
        self._config = config
        self._state = state
        self._hub = hub if config.hub.token_review else None
        self._hub_keys = _keys_of(self._hub) if self._hub is not None else None
        self.revocations = RevocationStore(database)
        revoked = self.revocations.revocations
        state.authority(now)  # made at the first start
        files = TrustFiles(config.tls.client_ca, config.tls.client_crl)
        self.trust = ClientTrust(files, state.users, config.front_proxy, revoked)
        self.certificates = Certificates(config.tls, config.names, state, now, self.trust)
        self.keys = TokenKeys(config.tokens, state, now, revoked)
        self._oidc_file = _oidc_file(config, self.keys)
        self._oidc = OidcAuthenticator(self._oidc_file.configuration) if self._oidc_file else None
        self._issuers: frozenset[str] = frozenset()
        self._tidied = float("-inf")
        self.chain = AuthenticatorChain(self._authenticators(pinned), ttl=KNOWN_FOR)
        self.revocations.subscribe(self.forget)
        signs = lambda: self.trust.platform  # noqa: E731
        self._issuer = Issuer(signs, self.keys, self.revocations, config.certificates, config.tokens, os.urandom)
        self.part = self._part()

    def forget(self) -> None:
        """What was remembered of users may be wrong: keys, authorities or revocations have changed."""
        self.chain.clear()

    async def start(self, tasks: Tasks) -> None:
        """Begin to keep the issuers' keys fresh."""
        if self._oidc is not None:
            tasks.start("keys of OIDC issuers", self._oidc.run)
        if self._hub_keys is not None:
            tasks.start("keys of the hub", self._hub_keys.run)
            await self._look_at_hub()

    def _authenticators(self, pinned: PinnedKeys) -> list[Authenticator]:
        """By `authentication.order`; those that are not configured know nobody."""
        hub = frozenset(self._config.hub.audiences) if self._config.hub.token_review else frozenset()
        known: dict[str, Authenticator] = {
            "certificate": self.trust,
            "front-proxy": self.trust.front_proxy,
            "token": self.keys,
            "cluster": ClusterTokenAuthenticator(pinned, hub),
        }
        if self._oidc is not None:
            known["oidc"] = self._oidc
        if self._hub is not None and self._hub_keys is not None:
            known["hub"] = TokenReviewAuthenticator(
                self._hub.review_token, lambda: self._issuers, self._hub_keys, hub, time.monotonic
            )
        return [known[name] for name in self._config.authentication.order if name in known]

    # --- what others see of it

    def _part(self) -> Part:
        part = Part(
            looks={
                "client-trust": self._look_at_trust,
                "certificates": self._look_at_certificates,
                "token-keys": self._look_at_keys,
                "credentials": self._look_at_credentials,
            },
            warnings={"client-trust": lambda: self.trust.problem(time.time())},
            routes=[
                *CertificateApi(self._issuer, time.time).routes(),
                *JwksApi(self.keys).routes(),
                *WellKnown(self._config.login).routes(),
            ],
        )
        if self._oidc_file is not None:
            part.looks["oidc"] = self._look_at_oidc
            part.warnings["oidc"] = self._oidc_problem
        if self._hub is not None:
            part.looks["hub-issuers"] = self._look_at_hub
            part.warnings["hub-issuers"] = lambda: None if self._issuers else "the hub has not told its issuer yet"
            part.warnings["hub-keys"] = self._hub_keys_problem
        return part

    async def _look_at_trust(self) -> None:
        if self.trust.take(await asyncio.to_thread(self.trust.look)):
            self.forget()

    async def _look_at_certificates(self) -> None:
        self.certificates.poll(time.time())

    async def _look_at_keys(self) -> None:
        if self.keys.poll(time.time()):
            self.forget()

    async def _look_at_credentials(self) -> None:
        if time.monotonic() >= self._tidied + TIDY:
            self._tidied = time.monotonic()
            self.revocations.drop_expired(time.time())

    async def _look_at_oidc(self) -> None:
        file, oidc = self._oidc_file, self._oidc
        assert file is not None
        assert oidc is not None
        if file.take(await asyncio.to_thread(file.look)):
            oidc.replace(file.configuration)
            self.forget()

    def _oidc_problem(self) -> str | None:
        file, oidc = self._oidc_file, self._oidc
        problems = (file.problem if file else None, *(oidc.problems if oidc else ()))
        return "; ".join(filter(None, problems)) or None

    def _hub_keys_problem(self) -> str | None:
        problem = self._hub_keys.problem if self._hub_keys is not None else None
        return f"the keys of the hub: {problem}" if problem else None

    async def _look_at_hub(self) -> None:
        """Once: an issuer does not change while its API server runs, and a wrong one lets nobody in."""
        if self._hub is None or self._issuers:
            return
        try:
            self._issuers = await self._hub.issuers()
        except AuthenticationUnavailable:
            return  # the check says so


def _keys_of(hub: Hub) -> IssuerKeys:
    return IssuerKeys("the hub", HubFetcher(hub.key_set), time.time)


def _oidc_file(config: ServerConfig, keys: TokenKeys) -> AuthenticationConfigFile | None:
    path = config.authentication.config
    return AuthenticationConfigFile(path, disallowed=(keys.ring.issuer,)) if path is not None else None
