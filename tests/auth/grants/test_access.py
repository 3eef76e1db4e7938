"""What a restricted grant lets through, as real requests mean it: method, path and query."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.grants.access import KINDS, Access, Matcher, hands
from auth.grants.object import value_of
from auth.grants.specaccess import access_fields, read_access
from tunnel.requestinfo import request_info

POD = "/api/v1/namespaces/team-a/pods/web-0"
DEPLOYMENT = "/apis/apps/v1/namespaces/team-a/deployments/web"
VM = "/apis/subresources.kubevirt.io/v1/namespaces/team-a/virtualmachineinstances/vm"
CRD = "/apis/example.com/v1/namespaces/team-a/widgets/w"


def access(**fields: Any) -> Access:
    return read_access(value_of(fields, "access"))


def allows(matcher: Matcher, request: str) -> bool:
    method, _, target = request.partition(" ")
    path, _, query = target.partition("?")
    return matcher.refusal(request_info(method, path.encode(), query.encode())) is None


READ = [
    f"GET {POD}",
    f"HEAD {POD}",
    "GET /api/v1/pods",
    "GET /api/v1/pods?watch=1",
    "GET /api/v1/watch/pods",
    f"GET {POD}/log?follow=true",
    f"GET {POD}/status",
    f"GET {DEPLOYMENT}/scale",
    f"GET {CRD}",
    "GET /api/v1/nodes",
    "GET /api/v1/namespaces/team-a/secrets",
    "GET /api",
    "GET /apis/apps/v1",
    "GET /openapi/v3/apis/apps/v1",
    "GET /version",
    "HEAD /readyz",
    "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
    "POST /apis/authentication.k8s.io/v1/selfsubjectreviews",
]
NOT_READ = [
    f"GET {POD}/exec?command=sh",
    f"POST {POD}/exec?command=sh",
    f"GET {POD}/attach",
    f"POST {POD}/attach",
    f"GET {POD}/portforward",
    f"POST {POD}/portforward",
    f"GET {POD}/proxy/",
    f"POST {POD}/proxy/x",
    "GET /api/v1/namespaces/team-a/services/web/proxy/",
    "GET /api/v1/nodes/n/proxy/run/team-a/web-0/c?cmd=id",
    "GET /api/v1/nodes/n/proxy/pods",
    "GET /api/v1/proxy/nodes/n/pods",
    "GET /api/v1/proxy/namespaces/team-a/pods/web-0/x",
    f"GET {CRD}/proxy/x",
    f"GET {POD}/ephemeralcontainers",
    f"PATCH {POD}/ephemeralcontainers",
    f"GET {VM}/console",
    f"GET {VM}/vnc",
    f"GET {VM}/usbredir",
    f"GET {VM}/vsock",
    f"GET {VM}/portforward/22",
    f"PUT {DEPLOYMENT}/scale",
    f"PATCH {POD}/status",
    f"PUT {POD}",
    f"DELETE {POD}",
    "DELETE /api/v1/namespaces/team-a/pods",
    "POST /api/v1/namespaces/team-a/pods",
    f"POST {POD}/eviction",
    f"POST {POD}/binding",
    f"OPTIONS {POD}",
    f"BREW {POD}",
    "POST /apis/authorization.k8s.io/v1/subjectaccessreviews",
    "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews/x/y",
    "POST /apis/example.com/v1/selfsubjectreviews",
    "POST /api/v1/namespaces/team-a/serviceaccounts/x/token",
    "GET /metrics",
    "GET /debug/pprof/heap",
    "GET /logs/kubelet.log",
    "POST /api",
    "POST /version",
]


@pytest.mark.parametrize("request_", READ)
def test_read_only_reads(request_: str) -> None:
    assert allows(Matcher(access(readOnly=True)), request_)


@pytest.mark.parametrize("request_", NOT_READ)
def test_read_only_does_nothing_else(request_: str) -> None:
    assert not allows(Matcher(access(readOnly=True)), request_)
    assert not allows(Matcher(access(readOnly=True, verbs=["*"], resources=["*"])), request_)


@pytest.mark.parametrize("request_", [*READ, *NOT_READ])
def test_an_access_without_bounds_but_for_paths_allows_every_resource(request_: str) -> None:
    target = request_.partition(" ")[2]
    known = allows(Matcher(access(interactive=True, nonResourceURLs=["*"])), request_)
    assert known
    assert allows(Matcher(access(interactive=True)), request_) is (target not in OTHER_PATHS or request_ in READ)


OTHER_PATHS = {"/metrics", "/debug/pprof/heap", "/logs/kubelet.log", "/api", "/version"}


@pytest.mark.parametrize(
    ("verbs", "request_", "expected"),
    [
        (["get"], f"GET {POD}", True),
        (["get"], "GET /api/v1/pods", False),
        (["list"], "GET /api/v1/pods", True),
        (["list"], "GET /api/v1/pods?watch=true", False),
        (["watch"], "GET /api/v1/pods?watch=true", True),
        (["get"], f"GET {POD}/exec", False),
        (["create"], f"GET {POD}/exec", True),
        (["delete"], f"DELETE {POD}", True),
        (["delete"], "DELETE /api/v1/namespaces/team-a/pods", False),
        (["deletecollection"], "DELETE /api/v1/namespaces/team-a/pods", True),
        (["update"], f"PUT {DEPLOYMENT}/scale", True),
        (["patch"], f"PUT {DEPLOYMENT}/scale", False),
        (["*"], f"PATCH {POD}", True),
        (["get"], "GET /metrics", True),
        (["get"], "HEAD /metrics", True),
        (["get"], "POST /metrics", False),
        (["post"], "POST /metrics", True),
        (["post"], "GET /api", True),
    ],
)
def test_verbs_are_those_of_kubernetes(verbs: list[str], request_: str, expected: bool) -> None:
    assert allows(Matcher(access(verbs=verbs, nonResourceURLs=["/metrics"])), request_) is expected


@pytest.mark.parametrize(
    ("resources", "request_", "expected"),
    [
        (["pods"], f"GET {POD}", True),
        (["pods"], f"GET {POD}/log", False),
        (["pods"], f"GET {POD}/exec", False),
        (["pods/log"], f"GET {POD}/log", True),
        (["pods/log"], f"GET {POD}", False),
        (["pods/*"], f"GET {POD}/exec", True),
        (["pods/*"], f"GET {POD}", False),
        (["*"], f"GET {POD}/exec", True),
        (["*"], f"PUT {DEPLOYMENT}/scale", True),
        (["*/scale"], f"PUT {DEPLOYMENT}/scale", True),
        (["*/scale"], f"PUT {DEPLOYMENT}", False),
        (["deployments.apps"], f"GET {DEPLOYMENT}", True),
        (["deployments"], f"GET {DEPLOYMENT}", False),
        (["deployments.*"], f"GET {DEPLOYMENT}", True),
        (["*.apps"], f"GET {DEPLOYMENT}/scale", True),
        (["*.apps"], f"GET {POD}", False),
        (["pods.apps"], f"GET {POD}", False),
        (["services"], "GET /api/v1/namespaces/team-a/services/web/proxy/", False),
        (["services/proxy"], "GET /api/v1/namespaces/team-a/services/web/proxy/", True),
        (["pods"], "GET /api/v1/proxy/namespaces/team-a/pods/web-0/x", False),
        (["pods/proxy"], "GET /api/v1/proxy/namespaces/team-a/pods/web-0/x", True),
        (["pods"], "GET /apis", True),
    ],
)
def test_resources_are_named_with_group_and_subresource(resources: list[str], request_: str, expected: bool) -> None:
    assert allows(Matcher(access(resources=resources)), request_) is expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (f"GET {POD}", True),
        (f"POST {POD}/exec", True),
        ("GET /api/v1/namespaces/team-a", True),
        ("GET /api/v1/namespaces/team-a/status", True),
        ("GET /api/v1/namespaces/other", False),
        ("GET /api/v1/namespaces", False),
        ("GET /api/v1/namespaces?fieldSelector=metadata.name=team-a", False),
        ("GET /api/v1/pods", False),
        ("GET /api/v1/pods?watch=1", False),
        ("GET /api/v1/nodes", False),
        ("GET /api/v1/namespaces/other/pods", False),
        ("GET /apis/example.com/v1/namespaces/team-a", False),
        ("GET /apis/example.com/v1/namespaces/team-a/widgets", True),
        ("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", True),
        ("GET /apis", True),
    ],
)
def test_namespaces_leave_nothing_of_the_whole_cluster(request_: str, expected: bool) -> None:
    assert allows(Matcher(access(namespaces=["team-*"])), request_) is expected


@pytest.mark.parametrize("pattern", ["*", "**"])
def test_no_pattern_matches_the_empty_namespace(pattern: str) -> None:
    assert not allows(Matcher(access(namespaces=[pattern])), "GET /api/v1/pods")


@pytest.mark.parametrize(
    ("kinds", "request_", "expected"),
    [
        (["exec"], f"GET {POD}/exec", True),
        (["exec"], f"POST {POD}/attach", False),
        (["exec"], f"PATCH {POD}/ephemeralcontainers", True),
        (["attach"], f"PATCH {POD}/ephemeralcontainers", False),
        (["attach"], f"POST {POD}/attach", True),
        (["portforward"], f"GET {POD}/portforward", True),
        (["portforward"], f"GET {VM}/portforward/22", True),
        (["console"], f"GET {VM}/vnc", True),
        (["exec"], f"GET {VM}/console", False),
        (["proxy"], f"GET {POD}/proxy/", True),
        (["proxy"], "GET /api/v1/namespaces/team-a/services/web/proxy/", True),
        (["proxy"], "GET /api/v1/nodes/n/proxy/pods", False),
        (["proxy"], "GET /api/v1/proxy/nodes/n/pods", False),
        (["proxy"], f"GET {CRD}/proxy/x", False),
        (["exec", "attach", "portforward", "proxy"], "GET /api/v1/nodes/n/proxy/pods", False),
        (["exec", "attach", "portforward", "proxy", "console"], "GET /api/v1/nodes/n/proxy/pods", True),
        (False, f"POST {POD}/exec", False),
        (False, f"GET {POD}/proxy/", False),
        (False, f"DELETE {POD}", True),
    ],
)
def test_what_gives_a_hand_inside_goes_by_meaning(kinds: object, request_: str, expected: bool) -> None:
    assert allows(Matcher(access(interactive=kinds)), request_) is expected


def test_what_is_interactive_in_a_way_nobody_thought_of_needs_every_kind() -> None:
    shell = replace(request_info("GET", f"{CRD}/shell".encode()), interactive=True)
    assert hands(shell.api_group, shell.resource, shell.subresource, True) == KINDS
    assert Matcher(access(readOnly=True)).refusal(shell) is not None
    assert Matcher(access(interactive=["exec"])).refusal(shell) is not None
    assert Matcher(access(interactive=True)).refusal(shell) is None


def test_a_refusal_says_what_is_allowed() -> None:
    refusal = Matcher(access(readOnly=True)).refusal(request_info("GET", f"{POD}/exec".encode()))
    assert refusal is not None
    assert refusal.reason == "is read-only: allows get, list, watch alone"


names = st.sampled_from(["pods", "pods/log", "deployments.apps", "*", "*.apps", "pods/*", "*/scale", "x.*"])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "readOnly": st.booleans(),
            "verbs": st.lists(st.sampled_from(["get", "list", "*"]), min_size=1, unique=True),
            "resources": st.lists(names, min_size=1, unique=True),
            "namespaces": st.lists(st.sampled_from(["a", "b-*"]), min_size=1, unique=True),
            "nonResourceURLs": st.lists(st.sampled_from(["/metrics", "/x/*", "*"]), min_size=1, unique=True),
        },
    ).filter(bool)
)
def test_what_is_written_canonically_reads_the_same(fields: dict[str, Any]) -> None:
    read = access(**fields)
    assert read_access(value_of(access_fields(read), "again")) == read
