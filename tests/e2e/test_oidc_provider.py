"""The authenticator and a real OIDC provider, from its login page to a user: dex over TLS, with nothing in between.

The gateway is not in this; what a configuration file says, and what dex's tokens say, is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable, Undecided
from auth.identity import Credentials, Identity
from auth.oidc.authenticator import OidcAuthenticator
from auth.oidc.configfile import AuthenticationConfigFile
from auth.oidc.jwkscache import RETRY
from auth.oidc.jwksfetch import TIMEOUT, HttpFetcher
from tests.support.dex import ADA, BOB, OTHER_CLIENT, PUBLIC_CLIENT, Dex, Person


class Clock:
    """Real time, plus what a test has not the patience to wait for."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Door:
    """What the pipeline does: ask, wait where it is told to, and ask again."""

    def __init__(self, authenticator: OidcAuthenticator, clock: Clock) -> None:
        self.authenticator = authenticator
        self.clock = clock

    async def ask(self, token: str) -> Identity | None:
        credentials = Credentials(f"Bearer {token}".encode())
        for _ in range(3):
            try:
                return self.authenticator.authenticate(credentials, self.clock())
            except Undecided as undecided:
                await undecided.settle()
        raise AssertionError("still undecided")


@contextlib.asynccontextmanager
async def door(configuration: Path) -> AsyncIterator[Door]:
    """An authenticator that runs, with the real fetcher."""
    clock = Clock()
    authenticator = OidcAuthenticator(AuthenticationConfigFile(configuration).configuration, HttpFetcher, clock)
    task = asyncio.create_task(authenticator.run(), name="authenticator")
    try:
        yield Door(authenticator, clock)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def written(path: Path, dex: Dex, *, username: str = "preferred_username", **more: Any) -> Path:
    """A file as kube-apiserver takes it."""
    issuer = {
        "url": dex.issuer,
        "audiences": [PUBLIC_CLIENT],
        "certificateAuthority": dex.authority.pem.decode(),
    }
    mappings = {
        "username": {"claim": username, "prefix": "dex:"},
        "groups": {"claim": "groups", "prefix": "dex:"},
        "extra": [{"key": "example.org/mail", "valueExpression": "claims.email"}],
    }
    jwt = [{"issuer": issuer, "claimMappings": mappings, **more}]
    kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}
    path.write_text(yaml.safe_dump({**kind, "jwt": jwt}))
    return path


@pytest.fixture
async def dex(testbed: Path) -> AsyncIterator[Dex]:
    async with Dex(testbed) as running:
        yield running


@pytest.fixture
def configuration(dex: Dex, tmp_path: Path) -> Path:
    return written(tmp_path / "authentication.yaml", dex)


async def test_who_logs_in_at_the_provider_is_known(dex: Dex, configuration: Path) -> None:
    device = await dex.start_device()
    await dex.approve_device(device["verification_uri_complete"], ADA)
    answers = [
        await dex.password_tokens(ADA),
        await dex.code_tokens(ADA),
        await dex.device_tokens(device["device_code"]),
    ]
    latest = answers[1]["refresh_token"]  # a login ends the refresh token of the one before
    answers.append(await dex.refresh(latest))
    async with door(configuration) as here:
        for answer in answers:
            identity = await here.ask(answer["id_token"])
            assert identity is not None
            assert (identity.user, identity.groups) == ("dex:ada", ("dex:dev", "dex:ops"))
            assert ("example.org/mail", ("ada@example.com",)) in identity.extra
            assert identity.source == f"oidc:{dex.issuer}"
            assert identity.credential_id.startswith("JWTSHA256=")
        nobody_in_a_group = await here.ask((await dex.password_tokens(BOB))["id_token"])
        assert nobody_in_a_group is not None
        assert nobody_in_a_group.groups == ()


async def test_a_token_for_another_client_is_refused(dex: Dex, configuration: Path) -> None:
    async with door(configuration) as here:
        with pytest.raises(AuthenticationFailed, match="another audience"):
            await here.ask((await dex.password_tokens(ADA, OTHER_CLIENT))["id_token"])


async def test_an_unverified_email_is_nobodys_name(dex: Dex, tmp_path: Path) -> None:
    async with door(written(tmp_path / "a.yaml", dex, username="email")) as here:
        identity = await here.ask((await dex.password_tokens(ADA))["id_token"])
        assert identity is not None
        assert identity.user == "dex:ada@example.com"
        with pytest.raises(AuthenticationFailed, match="not verified"):
            await here.ask((await dex.password_tokens(BOB))["id_token"])


async def test_a_rule_on_a_claim_is_kept(dex: Dex, tmp_path: Path) -> None:
    rules = [{"claim": "name", "requiredValue": "ada"}]
    async with door(written(tmp_path / "a.yaml", dex, claimValidationRules=rules)) as here:
        assert await here.ask((await dex.password_tokens(ADA))["id_token"])
        with pytest.raises(AuthenticationFailed, match="name is not what"):
            await here.ask((await dex.password_tokens(BOB))["id_token"])


async def test_tokens_end_when_the_provider_said(testbed: Path, tmp_path: Path) -> None:
    eve = Person("eve")
    brief = Dex(testbed, people=[eve], lifetime=30.0)
    async with brief, door(written(tmp_path / "a.yaml", brief)) as here:
        token = (await brief.password_tokens(eve))["id_token"]
        assert await here.ask(token)
        here.clock.ahead = 45.0
        with pytest.raises(AuthenticationFailed, match="expired"):
            await here.ask(token)


async def test_new_keys_are_taken_without_a_restart_and_old_ones_refused(dex: Dex, configuration: Path) -> None:
    async with door(configuration) as here:
        old = (await dex.password_tokens(ADA))["id_token"]
        assert await here.ask(old)
        await dex.halt()
        await dex.start()
        here.clock.ahead += RETRY
        new = (await dex.password_tokens(ADA))["id_token"]
        assert await here.ask(new)
        with pytest.raises(AuthenticationFailed, match="does not publish"):
            await here.ask(old)


@pytest.mark.parametrize("how", ["ended", "frozen"])
async def test_while_the_provider_is_down_known_keys_go_on(dex: Dex, configuration: Path, how: str) -> None:
    async with door(configuration) as here:
        known = (await dex.password_tokens(ADA))["id_token"]
        assert await here.ask(known)
        await dex.halt()
        await dex.start()
        unknown = (await dex.password_tokens(ADA))["id_token"]
        if how == "ended":
            await dex.halt()
        else:
            dex.pause()
        here.clock.ahead += RETRY
        began = time.monotonic()
        with pytest.raises(AuthenticationUnavailable, match="try again"):
            await here.ask(unknown)
        assert time.monotonic() - began < TIMEOUT + 1
        assert await here.ask(known)
        assert here.authenticator.problems
        if how == "frozen":
            dex.resume()
            here.clock.ahead += RETRY
            assert await here.ask(unknown)
            assert not here.authenticator.problems


async def test_a_provider_with_a_certificate_of_a_stranger_is_not_believed(
    dex: Dex, testbed: Path, tmp_path: Path
) -> None:
    token = (await dex.password_tokens(ADA))["id_token"]
    stranger = Dex(testbed)
    stranger.issuer = dex.issuer
    try:
        async with door(written(tmp_path / "a.yaml", stranger)) as here:
            with pytest.raises(AuthenticationUnavailable):
                await here.ask(token)
            assert "certificate" in here.authenticator.problems[0].lower()
    finally:
        await stranger.stop()
