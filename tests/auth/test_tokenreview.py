"""The hub's word on its service accounts: believed for the right issuer and audience, and never asked in vain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest

from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable, Undecided
from auth.identity import Credentials, Identity
from auth.tokenreview import Question, TokenReviewAuthenticator

NOW = 1_000.0
HUB = "https://hub.test"
USER = {
    "username": "system:serviceaccount:ci:deployer",
    "uid": "u-1",
    "groups": ["system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated"],
    "extra": {
        "authentication.kubernetes.io/credential-id": ["JTI=7"],
        "authentication.kubernetes.io/pod-name": ["p"],
    },
}


def token(**claims: Any) -> str:
    """Written by hand: the library refuses to encode what a test has to say."""
    body = json.dumps({"iss": HUB, "aud": ["kulvert"], "exp": int(NOW + 600), "jti": "7"} | claims).encode()
    return ".".join(
        jwt.utils.base64url_encode(part).decode() for part in (b'{"alg":"HS256","typ":"JWT"}', body, b"sig")
    )


class TheHub:
    def __init__(self, **status: Any) -> None:
        self.status: Mapping[str, Any] = {"authenticated": True, "user": USER, "audiences": ["kulvert"]} | status
        self.asked: list[str] = []
        self.away = False
        self.authenticator = TokenReviewAuthenticator(
            self.review, lambda: frozenset({HUB}), frozenset({"kulvert"}), lambda: NOW
        )

    async def review(self, text: str) -> Mapping[str, Any]:
        self.asked.append(text)
        if self.away:
            raise AuthenticationUnavailable("the hub cannot be reached")
        return self.status

    async def authenticate(self, text: str) -> Identity | None:
        credentials = Credentials(b"Bearer " + text.encode())
        try:
            return self.authenticator.authenticate(credentials, NOW)
        except Undecided as undecided:
            await undecided.settle()
            return self.authenticator.authenticate(credentials, NOW)


async def test_a_token_becomes_whom_the_hub_says() -> None:
    found = await TheHub().authenticate(token())
    assert found is not None
    assert (found.user, found.uid, found.source, found.expires) == (USER["username"], "u-1", "hub", NOW + 600)
    assert "system:serviceaccounts:ci" in found.groups
    assert found.extra == (("authentication.kubernetes.io/credential-id", ("JTI=7",)),), "pods and nodes are the hub's"


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False, "error": "token has been invalidated"},
        {"authenticated": "true"},
        {"authenticated": None},
        {"audiences": ["https://kubernetes.default.svc"]},
        {"audiences": None},
        {"user": {}},
        {"user": {"username": ""}},
        {"user": {"username": "x", "groups": [7]}},
    ],
)
async def test_anything_less_than_a_whole_yes_is_a_no(status: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationFailed):
        await TheHub(**status).authenticate(token())


ELSEWHERE = [token(iss=iss) for iss in ("https://elsewhere.test", [HUB], None, {"a": 1})]


@pytest.mark.parametrize("text", [*ELSEWHERE, "opaque", "a.b.c", "x" * 20_000])
async def test_other_peoples_tokens_never_reach_the_hub(text: str) -> None:
    hub = TheHub()
    assert await hub.authenticate(text) is None
    assert not hub.asked


@pytest.mark.parametrize("claims", [{"exp": int(NOW)}, {"exp": None}, {"exp": "never"}, {"exp": True}])
async def test_an_expired_or_endless_token_is_refused_without_asking(claims: dict[str, Any]) -> None:
    hub = TheHub()
    with pytest.raises(AuthenticationFailed):
        await hub.authenticate(token(**claims))
    assert not hub.asked


@pytest.mark.parametrize("audience", [HUB, [HUB, "vault"], [], None, [7], {"kulvert": 1}])
async def test_a_token_of_that_issuers_name_for_another_audience_is_not_sent_there(audience: Any) -> None:
    """All clusters may call their issuer the same: it may be another one's, and good there."""
    hub = TheHub()
    with pytest.raises(AuthenticationFailed, match="audience kulvert"):
        await hub.authenticate(token(aud=audience))
    assert not hub.asked


async def test_a_token_may_name_one_audience_without_a_list() -> None:
    assert await TheHub().authenticate(token(aud="kulvert")) is not None


async def test_a_hub_that_is_away_is_no_refusal() -> None:
    hub = TheHub()
    hub.away = True
    with pytest.raises(AuthenticationUnavailable):
        await hub.authenticate(token())


async def test_a_thousand_requests_with_one_token_are_one_review() -> None:
    hub = TheHub()
    text = token()
    assert len(await asyncio.gather(*(hub.authenticate(text) for _ in range(1_000)))) == 1_000
    assert len(hub.asked) == 1


def test_a_question_does_not_show_its_token() -> None:
    assert "s3cr3t" not in repr(Question("s3cr3t"))
