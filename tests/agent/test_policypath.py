"""Rules go by what a path means: one with two meanings never gets as far as a rule."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.policypath import ambiguous
from tunnel.requestinfo import request_info

POD = b"/api/v1/namespaces/other/pods"
SERVICE = "/api/v1/namespaces/a/services/foo/proxy"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/../../x", "/api/..", "/api/.", "/./api", "/api/%2e%2e/x", "/api/%2E./x", "/api/.%2e",
        "/api/%2e", "/api/a%2fb", "/api/a%2Fexec", "/api/a%5cb", "/api/a\\b", "//api", "/api//v1", "/api/v1//",
        "/api;x=1/v1", "/api/%3bx", "/api/a%00", "/api/a\0", "/api/%0d%0aX:y", "/api/a%", "/api/a%2", "/api/a%zz",
        "/api/a%252fb", "/api/%252e%252e/x", "/api/%c0%ae%c0%ae/x", "/api/%c0%af", "/api/%ff", "/api/%ed%a0%80",
        "/api/\x7f", "api/v1", "*", "", "http://other/api",
        f"{SERVICE}/../../x", f"{SERVICE}/%2e%2e/x", f"{SERVICE}/..;/x", f"{SERVICE}/a%2f..%2fb", f"{SERVICE}/%5c",
        "/api/v1/namespaces/proxy/pods/a%2fb", "/api/v1/watch/x/proxy/a%2fb",
    ],
)  # fmt: skip
def test_a_path_that_reads_two_ways_is_ambiguous(path: str) -> None:
    assert ambiguous(path.encode())


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api/v1/namespaces/kube-system/pods/a.b-c/log", "/api/v1/pods/",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
        "/api/v1/namespaces/a/services/https:foo:443/proxy/", f"{SERVICE}/a%20b/caf%C3%A9", f"{SERVICE}//a;b/c%2Fd",
        "/api/v1/...", "/api/v1/a..b", "/openapi/v3/apis/apps/v1", "/.well-known/openid-configuration",
    ],
)  # fmt: skip
def test_ordinary_paths_are_not(path: str) -> None:
    assert not ambiguous(path.encode())


@given(st.text(max_size=20))
@example("..")
@example("a/exec")
def test_a_name_that_passes_stays_one_segment(name: str) -> None:
    try:
        path = POD + b"/" + quote(name, safe="").encode()
    except UnicodeEncodeError:
        return
    if name and not ambiguous(path):
        info = request_info("GET", path)
        assert (info.name, info.subresource) == (name, "")
