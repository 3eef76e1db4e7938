"""What a path asks for, as kube-apiserver's RequestInfo has it."""

from __future__ import annotations

import pytest

from cli.sample.attributes import read

CASES = [
    ("GET", "/api/v1/pods", {}, ("list", "", "pods", "", "", "")),
    ("GET", "/api/v1/namespaces/n/pods", {}, ("list", "", "pods", "", "n", "")),
    ("GET", "/api/v1/namespaces/n/pods", {"watch": "true"}, ("watch", "", "pods", "", "n", "")),
    ("GET", "/api/v1/namespaces/n/pods/p", {}, ("get", "", "pods", "", "n", "p")),
    ("GET", "/api/v1/namespaces/n/pods/p/log", {}, ("get", "", "pods", "log", "n", "p")),
    ("GET", "/api/v1/namespaces/n/pods/p/exec", {}, ("create", "", "pods", "exec", "n", "p")),
    ("POST", "/api/v1/namespaces/n/pods/p/attach", {}, ("create", "", "pods", "attach", "n", "p")),
    ("DELETE", "/api/v1/namespaces/n/pods", {}, ("deletecollection", "", "pods", "", "n", "")),
    ("GET", "/api/v1/namespaces", {}, ("list", "", "namespaces", "", "", "")),
    ("GET", "/api/v1/namespaces/n", {}, ("get", "", "namespaces", "", "n", "n")),
    ("PUT", "/api/v1/namespaces/n/status", {}, ("update", "", "namespaces", "status", "n", "n")),
    ("GET", "/apis/g.io/v1/things/x", {}, ("get", "g.io", "things", "", "", "x")),
    ("PATCH", "/api/v1/nodes/a%20b", {}, ("patch", "", "nodes", "", "", "a b")),
    ("GET", "/apis/g.io/v1", {}, ("get", "", "", "", "", "")),
    ("GET", "/healthz/", {}, ("get", "", "", "", "", "")),
]


@pytest.mark.parametrize(("method", "path", "query", "expected"), CASES)
def test_a_path_is_read_once_and_rightly(
    method: str, path: str, query: dict[str, str], expected: tuple[str, ...]
) -> None:
    found = read(method, path, query)
    assert (found.verb, found.group, found.resource, found.subresource, found.namespace, found.name) == expected


def test_a_path_without_a_resource_is_normal() -> None:
    assert read("GET", "/healthz/", {}).path == "/healthz"
