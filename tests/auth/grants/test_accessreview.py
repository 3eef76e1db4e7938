"""The hub's RBAC as the judge: what is asked, what of the answer counts, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from auth.authenticator import AuthenticationUnavailable, Undecided
from auth.decision import Decision
from auth.grants.accessreview import AccessReviews, Either
from auth.grants.sources import GrantSources
from auth.identity import Identity
from tunnel.requestinfo import RequestInfo, request_info

ADA = Identity("ada", ("dev",), "u-1", (("team", ("x",)),), "x509", "X509SHA256=1", 9_999.0)
EXEC = request_info("GET", b"/api/v1/namespaces/n/pods/p/exec", b"command=sh")


class TheHub:
    def __init__(self, *, allowed: bool = True, reason: str = "") -> None:
        self.now = 1_000.0
        self.answer = allowed, reason
        self.asked: list[Mapping[str, Any]] = []
        self.away = False
        self.reviews = AccessReviews(self.review, lambda: self.now)

    async def review(self, spec: Mapping[str, Any]) -> tuple[bool, str]:
        self.asked.append(spec)
        if self.away:
            raise AuthenticationUnavailable("the hub cannot be reached")
        return self.answer

    async def decide(self, identity: Identity = ADA, request: RequestInfo | None = None) -> Decision:
        try:
            return self.reviews.decide(identity, "edge-7", self.now, request)
        except Undecided as undecided:
            await undecided.settle()
            return self.reviews.decide(identity, "edge-7", self.now, request)


async def test_the_question_names_the_user_whole_and_the_cluster() -> None:
    hub = TheHub()
    decision = await hub.decide()
    assert decision.allowed
    assert decision.headers[0] == (b"impersonate-user", b"ada")
    (asked,) = hub.asked
    assert (asked["user"], asked["uid"], asked["extra"]) == ("ada", "u-1", {"team": ["x"]})
    assert asked["groups"] == ["dev", "system:authenticated"]
    assert asked["resourceAttributes"] == {
        "group": "cluster.open-cluster-management.io",
        "resource": "managedclusters",
        "subresource": "proxy",
        "name": "edge-7",
        "verb": "get",
    }


@pytest.mark.parametrize(
    ("request_", "verb"),
    [
        (EXEC, "create"),
        (request_info("GET", b"/api/v1/pods", b"watch=1"), "watch"),
        (request_info("DELETE", b"/api/v1/namespaces/n/pods"), "deletecollection"),
        (request_info("GET", b"/version"), "get"),
        (request_info("POST", b"/logs/x"), "create"),
        # a hand inside is no reading, whatever the method
        (request_info("GET", b"/api/v1/nodes/n/proxy/exec/ns/pod/c", b"command=sh"), "create"),
        (
            request_info("GET", b"/apis/subresources.kubevirt.io/v1/namespaces/n/virtualmachineinstances/vm/vnc"),
            "create",
        ),
        (request_info("PATCH", b"/api/v1/namespaces/n/pods/p/ephemeralcontainers"), "create"),
        (replace(request_info("GET", b"/api/v1/namespaces/n/services/s/proxy/ws"), interactive=True), "create"),
        (request_info("GET", b"/api/v1/namespaces/n/services/s/proxy/"), "get"),
    ],
)
async def test_the_verb_is_what_the_request_means(request_: RequestInfo, verb: str) -> None:
    hub = TheHub()
    await hub.decide(request=request_)
    assert hub.asked[0]["resourceAttributes"]["verb"] == verb


async def test_a_no_says_what_the_hub_said() -> None:
    decision = await TheHub(allowed=False, reason="no such role").decide()
    assert not decision.allowed
    assert "no such role" in decision.reason
    assert "managedclusters/proxy" in decision.reason


async def test_a_yes_is_asked_again_after_15_seconds_and_a_no_after_5() -> None:
    hub = TheHub()
    await hub.decide()
    hub.now += 14.9
    await hub.decide()
    assert len(hub.asked) == 1
    hub.answer = False, ""
    hub.now += 0.2
    assert not (await hub.decide()).allowed
    hub.answer = True, ""
    hub.now += 5.1
    assert (await hub.decide()).allowed


async def test_a_yes_of_a_clock_that_was_set_back_does_not_count() -> None:
    hub = TheHub()
    assert (await hub.decide()).allowed
    wall, hub.now = hub.now - 86_400, hub.now + 60  # what measures goes on
    with pytest.raises(Undecided):
        hub.reviews.decide(ADA, "edge-7", wall)


async def test_a_hub_that_is_away_lets_nobody_in_and_says_that_it_is_away() -> None:
    hub = TheHub()
    hub.away = True
    with pytest.raises(AuthenticationUnavailable):
        await hub.decide()


async def test_protected_names_are_not_impersonated_even_where_the_hub_allows() -> None:
    admin = Identity("admin", ("system:masters",), "", (), "x509", "X509SHA256=2", 9_999.0)
    assert not (await TheHub().decide(admin)).allowed


async def test_a_clusters_own_service_account_is_none_of_the_hubs_business() -> None:
    own = Identity("system:serviceaccount:a:b", (), "", (), "cluster", "JTI=1", 9_999.0, "edge-7")
    hub = TheHub()
    assert not (await hub.decide(own)).allowed
    assert not hub.asked


class Says:
    def __init__(self, answer: Decision | Exception) -> None:
        self.answer = answer

    def decide(self, *_args: object) -> Decision:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


YES, NO = Decision(True, "yes", "yes"), Decision(False, "", "no grant lets ada in")
AWAY = AuthenticationUnavailable("away")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([YES, NO], YES),
        ([NO, YES], YES),
        ([NO, Decision(False, "", "neither")], NO),
        ([AWAY, YES], YES),
        ([YES, AWAY], YES),
    ],
)
def test_the_first_that_allows_decides(answers: list[Decision | Exception], expected: Decision) -> None:
    assert Either(*map(Says, answers)).decide(ADA, "edge-7", 0.0) is expected


def test_a_no_beside_one_that_is_away_is_no_no() -> None:
    with pytest.raises(AuthenticationUnavailable):
        Either(Says(NO), Says(AWAY)).decide(ADA, "edge-7", 0.0)


async def test_nobody_decides_in_the_place_of_grants_that_are_not_known_yet() -> None:
    """They might be for somebody else than himself, and come first."""
    hub = TheHub()
    await hub.decide()
    sources = GrantSources("file", "hub")
    sources.changed("file", (), hub.now)
    either = Either(sources, hub.reviews)
    with pytest.raises(AuthenticationUnavailable, match="not known yet"):
        either.decide(ADA, "edge-7", hub.now)
    sources.changed("hub", (), hub.now)
    assert either.decide(ADA, "edge-7", hub.now).allowed
