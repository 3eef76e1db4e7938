"""The hub's word on its service accounts: believed for the right issuer and audience, and never asked in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable, Undecided
from auth.identity import Credentials, Identity
from auth.oidc.jwkscache import RETRY, IssuerKeys
from auth.oidc.jwksfetch import FetchFailed
from auth.tokenreview import HubFetcher, Question, TokenReviewAuthenticator
from tests.support.oidc_issuer import NOW, Clock, FakeIssuer, jwk, key_set
from tests.support.token_forge import HOUR, Forge

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


CLAIMS = {"iss": HUB, "aud": ["kulvert"]}
KEY, NEXT, FOREIGN = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
FORGE, FORGED = (Forge(key, "k0", CLAIMS, int(NOW)) for key in (KEY, FOREIGN))
token = FORGE.good


class TheHub:
    """An asynchronous context, in which its keys are kept."""

    def __init__(self, **status: Any) -> None:
        self.status: Mapping[str, Any] = {"authenticated": True, "user": USER, "audiences": ["kulvert"]} | status
        self.asked: list[str] = []
        self.away = False
        self.issuer, self.clock = FakeIssuer([("k0", KEY)]), Clock()
        self.keys = IssuerKeys("the hub", self.issuer, self.clock)
        self.authenticator = TokenReviewAuthenticator(
            self.review, lambda: frozenset({HUB}), self.keys, frozenset({"kulvert"}), self.clock
        )

    async def __aenter__(self) -> Self:
        self.running = asyncio.create_task(self.keys.run(), name="keys of the hub")
        await self.keys.settle()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def review(self, text: str) -> Mapping[str, Any]:
        self.asked.append(text)
        if self.away:
            raise AuthenticationUnavailable("the hub cannot be reached")
        return self.status

    def at_once(self, text: str) -> Identity | None:
        return self.authenticator.authenticate(Credentials(b"Bearer " + text.encode()), self.clock())

    async def authenticate(self, text: str) -> Identity | None:
        for _ in range(2):  # its keys, and the review
            try:
                return self.at_once(text)
            except Undecided as undecided:
                await undecided.settle()
        return self.at_once(text)


@pytest.fixture
async def hub() -> AsyncIterator[TheHub]:
    async with TheHub() as running:
        yield running


async def test_a_token_becomes_whom_the_hub_says(hub: TheHub) -> None:
    found = await hub.authenticate(token(jti="7"))
    assert found is not None
    assert (found.user, found.uid, found.source, found.expires) == (USER["username"], "u-1", "hub", NOW + HOUR)
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
    async with TheHub(**status) as hub:
        with pytest.raises(AuthenticationFailed):
            await hub.authenticate(token())
    assert len(hub.asked) == 1


ELSEWHERE = [token(iss=iss) for iss in ("https://elsewhere.test", [HUB], None, {"a": 1})]


@pytest.mark.parametrize("text", [*ELSEWHERE, "opaque", "a.b.c", "x" * 20_000])
async def test_other_peoples_tokens_never_reach_the_hub(hub: TheHub, text: str) -> None:
    assert await hub.authenticate(text) is None
    assert not hub.asked


@pytest.mark.parametrize("claims", [{"exp": int(NOW)}, {"exp": None}, {"exp": "never"}, {"exp": True}])
async def test_an_expired_or_endless_token_is_refused_without_asking(hub: TheHub, claims: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationFailed):
        await hub.authenticate(token(**claims))
    assert not hub.asked


@pytest.mark.parametrize("audience", [HUB, [HUB, "vault"], [], None, [7], {"kulvert": 1}])
async def test_a_token_of_that_issuers_name_for_another_audience_is_not_sent_there(hub: TheHub, audience: Any) -> None:
    """All clusters may call their issuer the same: it may be another one's, and good there."""
    with pytest.raises(AuthenticationFailed, match="audience kulvert"):
        await hub.authenticate(token(aud=audience))
    assert not hub.asked


async def test_a_token_may_name_one_audience_without_a_list(hub: TheHub) -> None:
    assert await hub.authenticate(token(aud="kulvert")) is not None


async def test_a_hub_that_is_away_is_no_refusal(hub: TheHub) -> None:
    hub.away = True
    with pytest.raises(AuthenticationUnavailable):
        await hub.authenticate(token())


async def test_a_thousand_requests_with_one_token_are_one_review(hub: TheHub) -> None:
    text = token()
    assert len(await asyncio.gather(*(hub.authenticate(text) for _ in range(1_000)))) == 1_000
    assert len(hub.asked) == 1


def test_a_question_does_not_show_its_token() -> None:
    assert "s3cr3t" not in repr(Question("s3cr3t"))


# --- nothing is asked about what the hub's keys have not signed


BAD = {name: text for name, text in FORGE.bad().items() if name != "not yet valid"}  # that, the hub decides


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
async def test_a_bad_token_is_refused_or_nobodys_and_never_asked_about(hub: TheHub, text: str) -> None:
    try:
        assert await hub.authenticate(text) is None
    except AuthenticationUnavailable:
        raise
    except AuthenticationFailed:
        pass
    assert not hub.asked


@pytest.mark.parametrize("header", [{}, {"kid": "unknown"}, {"kid": None}])
async def test_a_flood_of_forged_tokens_asks_nothing_and_keeps_nobody_waiting(
    hub: TheHub, header: dict[str, Any]
) -> None:
    for _ in range(1_001):
        with pytest.raises(AuthenticationFailed) as refused:
            hub.at_once(FORGED.headed(**header))  # where it raises Undecided, somebody would have to wait
        assert not isinstance(refused.value, AuthenticationUnavailable)
    assert not hub.asked
    assert hub.issuer.fetches == 1
    assert await hub.authenticate(token()) is not None


async def test_a_flood_of_unknown_keys_is_one_question_for_keys_and_none_for_reviews(hub: TheHub) -> None:
    hub.clock.now += RETRY
    forged = [hub.authenticate(FORGED.headed(kid=f"k{number}")) for number in range(1, 1_001)]
    answers = await asyncio.gather(*forged, return_exceptions=True)
    assert {type(answer) for answer in answers} == {AuthenticationFailed}
    assert (hub.issuer.fetches, hub.asked) == (2, [])


async def test_an_algorithm_that_no_api_server_uses_does_not_even_ask_for_keys(hub: TheHub) -> None:
    hub.clock.now += RETRY
    for algorithm in ("none", "HS256", "PS256", "EdDSA"):
        with pytest.raises(AuthenticationFailed, match="no API server uses"):
            hub.at_once(FORGE.headed(alg=algorithm, kid="unknown"))


async def test_a_hub_that_changes_its_keys_is_followed_and_the_old_ones_tokens_end(hub: TheHub) -> None:
    old, new = token(), Forge(NEXT, "k1", CLAIMS, int(NOW)).good()
    assert await hub.authenticate(old) is not None
    hub.issuer.keys = [("k1", NEXT)]
    with pytest.raises(AuthenticationFailed, match="does not publish"):
        await hub.authenticate(new)
    hub.clock.now += RETRY
    assert await hub.authenticate(new) is not None
    with pytest.raises(AuthenticationFailed, match="does not publish"):
        await hub.authenticate(old)
    assert hub.asked == [old, new]


async def test_a_good_signature_does_not_outlive_the_hubs_yes(hub: TheHub) -> None:
    text = token()
    assert await hub.authenticate(text) is not None
    hub.status = {"authenticated": False}  # the account is deleted
    hub.clock.now += 10
    with pytest.raises(AuthenticationFailed, match="does not know"):
        await hub.authenticate(text)


async def test_without_the_hubs_keys_nobody_can_say_until_it_is_back() -> None:
    hub = TheHub()
    hub.issuer.down = True
    async with hub:
        with pytest.raises(AuthenticationUnavailable, match="keys"):
            await hub.authenticate(token())
        assert not hub.asked
        hub.issuer.down = False
        hub.clock.now += RETRY
        assert await hub.authenticate(token()) is not None


async def test_the_hubs_key_set_is_read_and_what_is_none_is_a_failed_fetch() -> None:
    async def published() -> bytes:
        return key_set(jwk(KEY, kid="k0", use="sig", alg="ES256"))

    async def away() -> bytes:
        raise AuthenticationUnavailable("the hub answers 403 to GET /openid/v1/jwks")

    async def junk() -> bytes:
        return b"<html>"

    assert [key.kid for key in (await HubFetcher(published).fetch()).keys.keys] == ["k0"]
    with pytest.raises(FetchFailed, match="403"):
        await HubFetcher(away).fetch()
    with pytest.raises(FetchFailed, match="the key set is not JSON"):
        await HubFetcher(junk).fetch()
