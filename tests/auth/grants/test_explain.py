"""Which grant decided, and what was with the others."""

from __future__ import annotations

import math

import pytest

from auth.grants.access import Access
from auth.grants.explain import Asked, explain, imagined
from auth.grants.grant import Grant, Maker, ServiceAccount
from auth.grants.sources import GrantSources
from auth.impersonation import AsWhom
from tunnel.requestinfo import request_info

NOW = 1_000.0
GET = Asked("get", "", "", "team-a", "pods", "", "web")


def test_every_grant_that_names_the_user_has_a_verdict_and_the_others_are_counted() -> None:
    ada = frozenset({"ada"})
    sources = GrantSources("file", "store")
    sources.changed(
        "file",
        [
            Grant("elsewhere", ada, clusters=("prod-*",)),
            Grant("old", ada, clusters=("*",), expires=NOW),
            Grant("listing", ada, clusters=("*",), access=Access(verbs=frozenset({"list"}))),
            Grant("viewer", ada, clusters=("edge-*",), impersonate=AsWhom("viewer", ("v",))),
            Grant("eves", frozenset({"eve"}), clusters=("*",)),
        ],
        NOW,
    )
    sources.changed(
        "store",
        [Grant("all", ada, clusters=("*",)), Grant("lost", ada, clusters=("*",), maker=Maker("x", (), "o"))],
        NOW,
    )
    found = explain(sources.listed, sources.grants, imagined("ada", ()), "edge-7", NOW, GET)
    assert (found.decision.rule, found.others) == ("viewer", 1)
    assert found.impersonated is not None
    assert (found.impersonated.user, found.impersonated.groups) == ("viewer", ("v",))
    assert [(one.rule, one.source, one.verdict) for one in found.considered] == [
        ("elsewhere", "file", "does not cover cluster 'edge-7'"),
        ("old", "file", "has expired"),
        ("listing", "file", "allows list alone"),
        ("viewer", "file", "decides"),
        ("all", "store", "would match, but an earlier one decides"),
        ("lost", "store", "not in force: 'x' could not make it now: you hold no grant with delegate: true"),
    ]


def test_a_service_account_is_the_hubs_or_the_clusters() -> None:
    user = "system:serviceaccount:ci:argocd"
    hubs = Grant(
        "hubs", accounts=frozenset({ServiceAccount("ci", "argocd")}), clusters=("*",), impersonate=AsWhom("ci")
    )
    own = frozenset({ServiceAccount("ci", "argocd", "edge-7")})
    sources = GrantSources("file")
    sources.changed("file", [hubs, Grant("own", accounts=own, clusters=("*",), pass_through=True)], NOW)
    asked = [imagined(user, ()), imagined(user, (), "edge-7")]
    rules = [explain(sources.listed, sources.grants, one, "edge-7", NOW, GET).decision.rule for one in asked]
    assert rules == ["hubs", "own"]
    assert "system:serviceaccounts:ci" in asked[0].groups
    assert not explain(sources.listed, sources.grants, asked[1], "edge-8", NOW, GET).decision.allowed


@pytest.mark.parametrize(
    ("method", "path", "imagined_"),
    [
        ("GET", "/api/v1/namespaces/n/pods/p", Asked("get", "", "", "n", "pods", "", "p")),
        ("POST", "/api/v1/namespaces/n/pods/p/exec", Asked("create", "", "", "n", "pods", "exec", "p")),
        ("GET", "/api/v1/namespaces/n/pods/p/proxy/x", Asked("get", "", "", "n", "pods", "proxy", "p")),
        ("GET", "/api/v1/nodes/n/proxy/x", Asked("get", "", "", "", "nodes", "proxy", "n")),
        ("GET", "/metrics", Asked("get", "/metrics")),
    ],
)
def test_an_imagined_request_means_what_the_real_one_means(method: str, path: str, imagined_: Asked) -> None:
    real = request_info(method, path.encode())
    for name in (
        "verb",
        "is_resource_request",
        "api_group",
        "namespace",
        "resource",
        "subresource",
        "name",
        "interactive",
    ):
        assert getattr(real, name) == getattr(imagined_, name), name


def test_nobody_is_seen_where_nothing_is_allowed() -> None:
    sources = GrantSources("file")
    sources.changed("file", [], NOW)
    found = explain(sources.listed, sources.grants, imagined("ada", ()), "c", NOW, GET)
    assert (found.decision.allowed, found.impersonated, found.considered, found.others) == (False, None, (), 0)
    assert imagined("ada", ()).expires == math.inf
