"""What requests mean, by the examples of kube-apiserver's own tests and by the ways around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.requestinfo import RequestInfo, request_info

POD = b"/api/v1/namespaces/other/pods"


def summary(info: RequestInfo) -> tuple[str, ...]:
    group = f"{info.api_group}/{info.api_version}".lstrip("/")
    return info.verb, group, info.namespace, info.resource, info.subresource, info.name


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        # k8s.io/apiserver pkg/endpoints/request/requestinfo_test.go
        ("GET", "/api/v1/namespaces", ("list", "v1", "", "namespaces", "", "")),
        ("GET", "/api/v1/namespaces/other", ("get", "v1", "other", "namespaces", "", "other")),
        ("GET", "/api/v1/namespaces/other/pods", ("list", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/namespaces/other/pods/foo", ("get", "v1", "other", "pods", "", "foo")),
        ("HEAD", "/api/v1/namespaces/other/pods/foo", ("get", "v1", "other", "pods", "", "foo")),
        ("GET", "/api/v1/pods", ("list", "v1", "", "pods", "", "")),
        ("HEAD", "/api/v1/pods", ("list", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/watch/pods", ("watch", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watch=true", ("watch", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watch=false", ("list", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/watch/namespaces/other/pods", ("watch", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/namespaces/other/pods?watch=1", ("watch", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/namespaces/other/pods?watch=0", ("list", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/proxy/namespaces/other/pods/foo", ("proxy", "v1", "other", "pods", "", "foo")),
        ("GET", "/api/v1/proxy/namespaces/other/pods/foo/sub/path", ("proxy", "v1", "other", "pods", "", "foo")),
        ("GET", "/api/v1/namespaces/other/pods/foo/status", ("get", "v1", "other", "pods", "status", "foo")),
        ("GET", "/api/v1/namespaces/other/pods/foo/proxy/sub", ("get", "v1", "other", "pods", "proxy", "foo")),
        ("PUT", "/api/v1/namespaces/other/finalize", ("update", "v1", "other", "namespaces", "finalize", "other")),
        ("PUT", "/api/v1/namespaces/other/status", ("update", "v1", "other", "namespaces", "status", "other")),
        ("PATCH", "/api/v1/namespaces/other/pods/foo", ("patch", "v1", "other", "pods", "", "foo")),
        ("DELETE", "/api/v1/namespaces/other/pods/foo", ("delete", "v1", "other", "pods", "", "foo")),
        ("DELETE", "/api/v1/namespaces/other/pods", ("deletecollection", "v1", "other", "pods", "", "")),
        ("POST", "/api/v1/namespaces/other/pods", ("create", "v1", "other", "pods", "", "")),
        ("POST", "/apis/apps/v1/namespaces/other/deployments", ("create", "apps/v1", "other", "deployments", "", "")),
        ("GET", "/apis/apps/v1/deployments", ("list", "apps/v1", "", "deployments", "", "")),
        # values of watch, as apimachinery reads booleans
        ("GET", "/api/v1/pods?watch", ("watch", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watch=", ("watch", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watch=False", ("list", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watch=0&watch=1", ("list", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?w%61tch=1", ("watch", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watch=1;x=2", ("list", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watcher=1&xwatch=1", ("list", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods/foo?watch=1", ("get", "v1", "", "pods", "", "foo")),
        # a field selector names the object
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dfoo", ("list", "v1", "", "pods", "", "foo")),
        ("GET", "/api/v1/pods?fieldSelector=a%3Db,metadata.name==foo&watch=1", ("watch", "v1", "", "pods", "", "foo")),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name!=foo", ("list", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name=..", ("list", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name=a%2Fb", ("list", "v1", "", "pods", "", "")),
        # exec and its like by meaning
        ("GET", "/api/v1/namespaces/other/pods/foo/exec", ("create", "v1", "other", "pods", "exec", "foo")),
        ("POST", "/api/v1/namespaces/other/pods/foo/exec", ("create", "v1", "other", "pods", "exec", "foo")),
        ("GET", "/api/v1/namespaces/other/pods/foo%2Fexec", ("create", "v1", "other", "pods", "exec", "foo")),
        ("GET", "/api/v1/namespaces/other/pods/foo/%65xec", ("create", "v1", "other", "pods", "exec", "foo")),
        ("OPTIONS", "/api/v1/namespaces/other/pods", ("", "v1", "other", "pods", "", "")),
        # no resource requests
        ("GET", "/", ("get", "", "", "", "", "")),
        ("GET", "/api", ("get", "", "", "", "", "")),
        ("GET", "/api/v1", ("get", "", "", "", "", "")),
        ("GET", "/apis/apps/v1", ("get", "", "", "", "", "")),
        ("POST", "/healthz", ("post", "", "", "", "", "")),
        ("GET", "/other/v1/namespaces/x/pods", ("get", "", "", "", "", "")),
    ],
)
def test_a_request_means_what_kube_apiserver_takes_it_for(method: str, target: str, expected: tuple[str, ...]) -> None:
    path, _, query = target.encode().partition(b"?")
    info = request_info(method, path, query)
    assert summary(info) == expected
    assert info.is_resource_request == bool(expected[3])
    assert request_info(method, path, query + b"&x=" + b"y" * 600) == request_info(method, path, query)


@pytest.mark.parametrize(
    ("method", "target", "long", "retry", "interactive"),
    [
        ("GET", "/api/v1/pods", False, True, False),
        ("GET", "/api/v1/pods/foo", False, True, False),
        ("GET", "/version", False, True, False),
        ("GET", "/api/v1/pods/foo/status", False, True, False),
        ("GET", "/api/v1/pods?watch=1", True, False, False),
        ("GET", "/api/v1/watch/pods", True, False, False),
        ("POST", "/api/v1/pods", False, False, False),
        ("DELETE", "/api/v1/pods", False, False, False),
        ("GET", "/api/v1/namespaces/a/pods/foo/log", False, False, False),
        ("GET", "/api/v1/namespaces/a/pods/foo/log?follow=false", False, False, False),
        ("GET", "/api/v1/namespaces/a/pods/foo/log?follow=true", True, False, False),
        ("GET", "/api/v1/namespaces/a/pods/foo/log?follow", True, False, False),
        ("GET", "/api/v1/namespaces/a/pods/foo/exec?command=x", True, False, True),
        ("POST", "/api/v1/namespaces/a/pods/foo/attach", True, False, True),
        ("GET", "/api/v1/namespaces/a/pods/foo/portforward", True, False, True),
        ("PATCH", "/api/v1/namespaces/a/pods/foo/ephemeralcontainers", False, False, True),
        ("GET", "/api/v1/namespaces/a/services/foo:80/proxy/x", True, False, False),
        ("GET", "/api/v1/namespaces/a/pods/foo/proxy", True, False, False),
        ("GET", "/api/v1/nodes/n1/proxy/run/ns/pod/c", True, False, True),
        ("POST", "/api/v1/nodes/n1/proxy/exec", True, False, True),
        ("GET", "/api/v1/proxy/nodes/n1/run", True, False, True),
        ("GET", "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/v/vnc", True, False, True),
        ("GET", "/apis/metrics.k8s.io/v1beta1/nodes", False, True, False),
        ("GET", "/apis/x.test/v1/things/a/unknown", False, False, False),
        ("GET", "/debug/pprof/profile", True, False, False),
    ],
)
def test_what_lasts_what_may_be_repeated_and_what_gives_a_hand_inside(
    method: str, target: str, long: bool, retry: bool, interactive: bool
) -> None:
    path, _, query = target.encode().partition(b"?")
    info = request_info(method, path, query)
    assert (info.is_long_running, info.is_retryable_read, info.interactive) == (long, retry, interactive)


segments = st.lists(
    st.sampled_from(
        ["api", "apis", "v1", "namespaces", "pods", "nodes", "proxy", "watch", "exec", "log", "a", "", "%2f"]
    )
)


@given(st.sampled_from(["GET", "POST", "DELETE", "HEAD", "BREW"]), segments, st.binary(max_size=20))
def test_no_path_breaks_it_and_only_reads_are_repeated(method: str, parts: list[str], query: bytes) -> None:
    info = request_info(method, "/".join(["", *parts]).encode(), query)
    if info.is_retryable_read:
        assert method in ("GET", "HEAD")
        assert info.verb in ("get", "list") or not info.is_resource_request
        assert not info.is_long_running
        assert not info.interactive


@given(st.binary(max_size=40))
def test_bytes_of_any_kind_have_some_meaning(path: bytes) -> None:
    assert request_info("GET", path).verb
