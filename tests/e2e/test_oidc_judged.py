"""The same file and the same tokens, shown to a real kube-apiserver: who it says that a user is, Kulvert says too.

Where Kulvert refuses what kube-apiserver takes, that is meant, and listed here; the other way round there is nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import yaml

from auth.authenticator import AuthenticationFailed
from auth.identity import BadIdentity, Credentials
from auth.oidc.authenticator import OidcAuthenticator
from auth.oidc.configfile import AuthenticationConfigFile
from tests.support import cluster_commands
from tests.support.cluster import Cluster
from tests.support.oidc_issuer import rsa_key
from tests.support.oidc_site import Site, serving

Who = tuple[str, str, frozenset[str], dict[str, list[str]]]
"""User, uid, groups and extra; None instead is nobody."""


@dataclass(frozen=True)
class Case:
    """A token, as it differs from a good one; `stricter` where only kube-apiserver takes it. `mail`: it is of the
    second issuer, whose users are named by their email.
    """

    claims: dict[str, Any]
    header: dict[str, Any] | None = None
    stricter: bool = False
    mail: bool = False


def cases(now: int) -> dict[str, Case]:
    """By name, made when they are shown: some end soon after `now`."""
    return {
        "good": Case({}),
        "one group as text": Case({"groups": "dev"}),
        "no groups": Case({"groups": None}),
        "an empty list of groups": Case({"groups": []}),
        "groups that are numbers": Case({"groups": [1]}),
        "groups in an object": Case({"groups": {"a": "b"}}),
        "no jti": Case({"jti": None}),
        "a jti that is a number": Case({"jti": 7}),
        "no user": Case({"sub": None}),
        "a user that is a number": Case({"sub": 7}),
        "an empty user": Case({"sub": ""}, stricter=True),
        "a user beyond ASCII": Case({"sub": "Zoë"}),
        "no uid": Case({"oid": None}),
        "a uid that is a number": Case({"oid": 7}),
        "an extra of several values": Case({"team": ["a", "b"]}),
        "an extra with an empty value": Case({"team": ["", "b"]}),
        "an empty extra": Case({"team": ""}),
        "no extra": Case({"team": None}),
        "an extra that is a number": Case({"team": 7}),
        "a required claim of another value": Case({"hd": "example.org"}),
        "a required claim in a list": Case({"hd": ["example.com"]}),
        "a required claim that lacks": Case({"hd": None}),
        "the second audience": Case({"aud": "second"}),
        "several audiences": Case({"aud": ["x", "second"]}),
        "another audience": Case({"aud": "x"}),
        "no audience": Case({"aud": None}),
        "expired": Case({"exp": now - 60}),
        "no end": Case({"exp": None}),
        "an end that is text": Case({"exp": str(now + 600)}, stricter=True),
        "not valid for an hour yet": Case({"nbf": now + 3600}),
        "made in an hour": Case({"iat": now + 3600}, stricter=True),
        "an unknown kid": Case({}, {"kid": "k9"}),
        "a token to log out with": Case({}, {"typ": "logout+jwt"}, stricter=True),
        "an access token": Case({}, {"typ": "at+jwt"}),
        "a critical extension": Case({}, {"crit": ["x"], "x": 1}),
        "groups that are elsewhere": Case(
            {
                "groups": None,
                "_claim_names": {"groups": "s"},
                "_claim_sources": {"s": {"endpoint": "https://127.0.0.1:1/", "access_token": "t"}},
            }
        ),
        "an email": Case({}, mail=True),
        "an email, verified": Case({"email_verified": True}, mail=True),
        "an email, not verified": Case({"email_verified": False}, mail=True),
        "an email, verified in text": Case({"email_verified": "true"}, mail=True),
        "an email, verified by a number": Case({"email_verified": 1}, mail=True),
        "no email": Case({"email": None}, mail=True),
    }


def written(path: Path, site: Site, mail: Site) -> Path:
    full = {
        "username": {"claim": "sub", "prefix": "oidc:"},
        "groups": {"claim": "groups", "prefix": "oidc:"},
        "uid": {"claim": "oid"},
        "extra": [{"key": "example.org/team", "valueExpression": "claims.team"}],
    }
    rules = [{"claim": "hd", "requiredValue": "example.com"}]
    entries = [
        {"issuer": issuer(site), "claimMappings": full, "claimValidationRules": rules},
        {"issuer": issuer(mail), "claimMappings": {"username": {"claim": "email", "prefix": ""}}},
    ]
    kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}
    path.write_text(yaml.safe_dump({**kind, "anonymous": {"enabled": False}, "jwt": entries}))
    return path


def issuer(site: Site) -> dict[str, Any]:
    return {
        "url": site.url,
        "certificateAuthority": site.authority.pem.decode(),
        "audiences": ["kulvert", "second"],
        "audienceMatchPolicy": "MatchAny",
    }


def token(url: str, case: Case, now: int) -> str:
    claims = {
        "iss": url,
        "aud": "kulvert",
        "exp": now + 3600,
        "iat": now,
        "sub": "jane",
        "groups": ["dev", "ops"],
        "oid": "u-1",
        "team": "a",
        "email": "jane@example.com",
        "hd": "example.com",
        "jti": "t1",
        **case.claims,
    }
    told = {name: value for name, value in claims.items() if value is not None}
    headers = {"typ": "JWT", "kid": "k0", **(case.header or {})}
    return jwt.api_jws.encode(json.dumps(told).encode(), rsa_key(), "RS256", headers)


@contextlib.asynccontextmanager
async def judging(
    testbed: Path, file: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cluster]:
    """A cluster whose API server has this file for its --authentication-config."""

    def with_file(*args: Any) -> cluster_commands.Command:
        return [*cluster_commands.kube_apiserver(*args), f"--authentication-config={file}"]

    monkeypatch.setitem(cluster_commands.COMMANDS, "kube-apiserver", with_file)
    async with Cluster("judge", testbed, directory) as cluster:
        yield cluster


async def apiserver_says(session: aiohttp.ClientSession, cluster: Cluster, text: str) -> Who | None:
    url = f"{cluster.server}/apis/authentication.k8s.io/v1/selfsubjectreviews"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    async with session.post(url, json=review, headers={"Authorization": f"Bearer {text}"}) as answer:
        assert answer.status in (201, 401), await answer.text()
        if answer.status == 401:
            return None
        user = (await answer.json())["status"]["userInfo"]
    groups = frozenset(user.get("groups", ())) - {"system:authenticated"}
    return user.get("username", ""), user.get("uid", ""), groups, user.get("extra", {})


def kulvert_says(authenticator: OidcAuthenticator, text: str) -> Who | None:
    try:
        found = authenticator.authenticate(Credentials(f"Bearer {text}".encode()), time.time())
    except (AuthenticationFailed, BadIdentity):
        return None
    assert found is not None
    # kube-apiserver has no name for a token without jti, and Kulvert has.
    extra = {key: list(values) for key, values in found.extra if not values[0].startswith("JWTSHA256=")}
    return found.user, found.uid, frozenset(found.groups), extra


@contextlib.asynccontextmanager
async def two_sites(directory: Path) -> AsyncIterator[tuple[Site, Site]]:
    for name in ("full", "mail"):
        (directory / name).mkdir()
    async with serving(directory / "full") as full, serving(directory / "mail") as mail:
        yield full, mail


@contextlib.asynccontextmanager
async def kulvert(file: Path) -> AsyncIterator[OidcAuthenticator]:
    authenticator = OidcAuthenticator(AuthenticationConfigFile(file).configuration)
    task = asyncio.create_task(authenticator.run())
    try:
        yield authenticator
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_real_apiserver_reads_the_same_file_and_tokens_alike(
    testbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    shown = cases(now)
    async with two_sites(tmp_path) as sites:
        file = written(tmp_path / "authentication.yaml", *sites)
        tokens = {name: token(sites[case.mail].url, case, now) for name, case in shown.items()}
        async with kulvert(file) as authenticator, judging(testbed, file, tmp_path, monkeypatch) as cluster:
            context = ssl.create_default_context(cafile=cluster.ca_file)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
                for first in ("good", "an email"):  # each issuer's keys are fetched after the API server is ready
                    await cluster.wait_for(partial(apiserver_says, session, cluster, tokens[first]), first)
                theirs = {name: await apiserver_says(session, cluster, text) for name, text in tokens.items()}
            ours = {name: kulvert_says(authenticator, text) for name, text in tokens.items()}
    stricter = {name for name in shown if theirs[name] and not ours[name]}
    assert stricter == {name for name, case in shown.items() if case.stricter}
    assert {name: who for name, who in ours.items() if who} == {
        name: who for name, who in theirs.items() if name not in stricter and who
    }
    assert len([who for who in ours.values() if who]) > 12
