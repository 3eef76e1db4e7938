"""Routing is decided from one parse; what two parsers could read differently is refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.route import Router
from tunnel.errors import HeadError
from tunnel.requestinfo import request_info

PATHS = Router()
HOSTS = Router("clusters.example.com")


@pytest.mark.parametrize(
    ("target", "cluster", "upstream", "prefix"),
    [
        (b"/clusters/a", "a", b"/", b"/clusters/a"),
        (b"/clusters/a/", "a", b"/", b"/clusters/a"),
        (b"/clusters/a?x=1", "a", b"/?x=1", b"/clusters/a"),
        (b"/clusters/a-1/api/v1/pods?limit=5&x=%2F..%00", "a-1", b"/api/v1/pods?limit=5&x=%2F..%00", b"/clusters/a-1"),
        (b"/clusters/a/.well-known/openid-configuration", "a", b"/.well-known/openid-configuration", b"/clusters/a"),
        (
            b"/clusters/a/apis/rbac/v1/clusterroles/system:x",
            "a",
            b"/apis/rbac/v1/clusterroles/system:x",
            b"/clusters/a",
        ),
        (b"/clusters/a/api/v1/namespaces/x/pods/%C3%A9", "a", b"/api/v1/namespaces/x/pods/%C3%A9", b"/clusters/a"),
        (b"/clusters/a/clusters/b/api", "a", b"/clusters/b/api", b"/clusters/a"),
        (b"/healthz", None, b"/healthz", b""),
        (b"/", None, b"/", b""),
        (b"/clusters", None, b"/clusters", b""),
        (b"/Clusters/a/api", None, b"/Clusters/a/api", b""),
    ],
)
def test_by_path(target: bytes, cluster: str | None, upstream: bytes, prefix: bytes) -> None:
    route = PATHS.route(target, b"gateway")
    assert (route.cluster, route.target, route.prefix) == (cluster, upstream, prefix)


PROXY = b"/clusters/a/api/v1/namespaces/n/services/http:web:80/proxy"


@pytest.mark.parametrize(
    "tail", [b"", b"/", b"/a%2Fb", b"/a;v=1/b", b"//x", b"/a%20b", b"/%25", b"/...", b"?..", b"/p?a=//"]
)
def test_an_applications_own_paths_pass_behind_a_proxy(tail: bytes) -> None:
    assert PATHS.route(PROXY + tail, b"g").target == PROXY.removeprefix(b"/clusters/a") + tail


@pytest.mark.parametrize(
    "tail",
    [b"/..", b"/../x", b"/%2e%2e/x", b"/.%2E", b"/%2e", b"/..%2fx", b"/a%2f..%2fb", b"/..;/x", b"/%5c", b"/a\\b",
     b"/%00",
     b"/%0a", b"/%zz", b"/%", b"/%c0%ae", b"/%ff"],
)  # fmt: skip
def test_nothing_leads_out_of_a_proxied_prefix(tail: bytes) -> None:
    with pytest.raises(HeadError):
        PATHS.route(PROXY + tail, b"g")


@pytest.mark.parametrize(
    "target",
    [
        b"/clusters/a/..", b"/clusters/a/../b/api", b"/clusters/../x", b"/clusters/%2e%2e/x", b"/clusters/a/%2e%2e/b",
        b"/clusters/a%2fb/api", b"/clusters%2fa/api", b"/clusters/a%00/api", b"/clusters/a;b/api", b"/clusters//a/api",
        b"/clusters//api", b"//clusters/a/api", b"/./clusters/a",
        b"/clusters/A/api", b"/clusters/a.b/api", b"/clusters/-a/x",
        b"/clusters/a-/x", b"/clusters/" + b"a" * 64 + b"/x", b"/clusters/a_b/api", b"/clusters/", b"/clusters/?x",
        b"/clusters/a/api//pods", b"/clusters/a/api;x/pods", b"/clusters/a/api%2fv1/pods", b"/clusters/a/api%2Fv1",
        b"/clusters/a/api%5cv1", b"/clusters/a/api\\v1", b"/clusters/a/a%252fb",
        b"/clusters/a/%61pi/%2e", b"/clusters/a/%c0%af",
        b"/clusters/a/\x80", b"/clusters/a/x%0d%0aX:y", b"/clusters/a/api#x", b"*", b"http://x/clusters/a", b"",
        b"/healthz/../clusters/a", b"/healthz%2f..", b"/healthz;x", b"//healthz",
        # `proxy` in another place is no proxied application
        b"/clusters/a/api/v1/namespaces/proxy/pods/a%2fb", b"/clusters/a/api/v1/namespaces/x/proxy/a%2fb",
        b"/clusters/a/proxy/a%2fb", b"/clusters/a/api/v1/proxy/x/y/a%2fb", b"/clusters/a/api/v1/watch/x/proxy/a%2fb",
    ],
)  # fmt: skip
def test_suspicious_targets_are_refused(target: bytes) -> None:
    with pytest.raises(HeadError) as refused:
        PATHS.route(target, b"gateway")
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("host", "cluster"),
    [
        (b"a.clusters.example.com", "a"),
        (b"A.Clusters.Example.COM:8443", "a"),
        (b"a.clusters.example.com.", "a"),
        (b"clusters.example.com", None),
        (b"example.com", None),
        (b"a.clusters.example.com.evil.org", None),
        (b"aclusters.example.com", None),
        (b"", None),
    ],
)
def test_by_host(host: bytes, cluster: str | None) -> None:
    route = HOSTS.route(b"/api/v1/pods?x", host)
    assert (route.cluster, route.target, route.prefix) == (cluster, b"/api/v1/pods?x", b"")


@pytest.mark.parametrize("host", [b"a.b.clusters.example.com", b"a_.clusters.example.com", b".clusters.example.com"])
def test_a_malformed_name_below_the_domain_is_refused(host: bytes) -> None:
    with pytest.raises(HeadError):
        HOSTS.route(b"/api", host)


def test_the_host_wins_over_the_path() -> None:
    route = HOSTS.route(b"/clusters/b/api", b"a.clusters.example.com")
    assert (route.cluster, route.target) == ("a", b"/clusters/b/api")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/../../x", "/api/..", "/api/.", "/./api", "/api/%2e%2e/x", "/api/%2E./x", "/api/.%2e",
        "/api/%2e", "/api/a%2fb", "/api/a%2Fexec", "/api/a%5cb", "/api/a\\b", "//api", "/api//v1", "/api/v1//",
        "/api;x=1/v1", "/api/%3bx", "/api/a%00", "/api/a\0", "/api/%0d%0aX:y", "/api/a b", "/api/a#b", "/api/a%",
        "/api/a%2", "/api/a%zz", "/api/a%252fb", "/api/%252e%252e/x", "/api/%c0%ae%c0%ae/x", "/api/%c0%af",
        "/api/%ff", "/api/%ed%a0%80", "/api/\x7f", "/api/é",
    ],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["/clusters/a", ""])
def test_no_path_that_reads_two_ways_gets_through(path: str, prefix: str) -> None:
    with pytest.raises(HeadError):
        PATHS.route(f"{prefix}{path}".encode(), b"gateway")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api/v1/namespaces/kube-system/pods/a.b-c/log", "/openapi/v3/apis/apps/v1", "/api/v1/...", "/api/v1/a..b",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
        "/api/v1/namespaces/a/services/https:foo:443/proxy/",
        "/api/v1/namespaces/a/services/foo/proxy/a%20b/caf%C3%A9",
    ],
)  # fmt: skip
def test_ordinary_paths_get_through_as_they_are(path: str) -> None:
    assert PATHS.route(f"/clusters/a{path}".encode(), b"gateway").target == path.encode()


@given(st.text(max_size=20))
@example("..")
@example("a/exec")
def test_a_name_that_gets_through_stays_one_segment(name: str) -> None:
    try:
        path = b"/api/v1/namespaces/other/pods/" + quote(name, safe="").encode()
        route = PATHS.route(b"/clusters/a" + path, b"gateway")
    except (UnicodeEncodeError, HeadError):
        return
    if name:
        info = request_info("GET", route.target)
        assert (info.name, info.subresource) == (name, "")
