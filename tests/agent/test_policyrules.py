"""The rules of a cluster's owner: what each setting closes, and that nothing gets around it."""

from __future__ import annotations

import pytest

from agent.policyrules import Lists, PolicyRules, RuleSettings


def verdict(settings: RuleSettings, method: str, target: str, upgrade: bool = False) -> str:
    """The rule that forbids it, or ""."""
    rules = settings.made()
    assert rules is not None
    for _ in range(2):  # remembered verdicts are the same
        refusal = rules.of_request(method.encode(), target.encode(), upgrade)
    return refusal.rule if refusal is not None else ""


READ_ONLY = RuleSettings(read_only=True)
HANDS_OFF = RuleSettings(interactive=False)
POD = "/api/v1/namespaces/a/pods/p"


def test_without_a_rule_there_is_nobody_to_ask() -> None:
    assert RuleSettings().made() is None


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/api/v1/pods"),
        ("GET", f"{POD}"),
        ("HEAD", f"{POD}"),
        ("GET", "/api/v1/pods?watch=1"),
        ("GET", f"{POD}/log?follow=1"),
        ("GET", "/openapi/v2"),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews"),
    ],
)
def test_read_only_lets_reads_through(method: str, target: str) -> None:
    assert verdict(READ_ONLY, method, target) == ""


@pytest.mark.parametrize(
    ("method", "target", "upgrade"),
    [
        ("POST", "/api/v1/namespaces/a/pods", False),
        ("DELETE", POD, False),
        ("PATCH", POD, False),
        ("PUT", POD, False),
        ("OPTIONS", "/api/v1/pods", False),
        ("DELETE", "/api/v1/namespaces/a/pods", False),
        ("POST", "/api/v1/namespaces/a/serviceaccounts/x/token", False),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", False),
        ("POST", "/healthz", False),
        ("GET", f"{POD}/exec?command=sh", True),
        ("GET", f"{POD}/exec?command=sh", False),
        ("GET", f"{POD}/attach", True),
        ("GET", f"{POD}/portforward", True),
        ("GET", "/api/v1/nodes/n/proxy/run/a/p/c", False),
        ("GET", "/api/v1/proxy/nodes/n/run", False),
        ("GET", "/api/v1/namespaces/a/services/web/proxy/delete-everything", False),
        ("GET", "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/v/vnc", True),
        ("GET", f"{POD}/shell-of-tomorrow", True),
        ("GET", "/shell", True),
    ],
)
def test_read_only_lets_nothing_else_through(method: str, target: str, upgrade: bool) -> None:
    assert verdict(READ_ONLY, method, target, upgrade) == "readOnly"


@pytest.mark.parametrize(
    ("method", "target", "upgrade"),
    [
        ("GET", f"{POD}/exec", True),
        ("POST", f"{POD}/exec", True),
        ("POST", f"{POD}/attach", True),
        ("POST", f"{POD}/portforward", True),
        ("PATCH", f"{POD}/ephemeralcontainers", False),
        ("GET", "/api/v1/nodes/n/proxy/exec/a/p/c", True),
        ("GET", "/api/v1/nodes/n:10250/proxy/", False),
        ("GET", "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/v/console", True),
        ("GET", "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/v/vsock", True),
        ("GET", f"{POD}/shell-of-tomorrow", True),
    ],
)
def test_hands_stay_out_by_meaning_and_not_by_method(method: str, target: str, upgrade: bool) -> None:
    assert verdict(HANDS_OFF, method, target, upgrade) == "interactive"


@pytest.mark.parametrize(
    ("method", "target", "upgrade"),
    [
        ("DELETE", POD, False),
        ("GET", "/api/v1/pods?watch=1", True),
        ("GET", f"{POD}/log?follow=1", True),
        ("GET", "/api/v1/namespaces/a/services/web/proxy/socket", True),
        ("GET", "/api/v1/nodes/n", False),
    ],
)
def test_everything_else_stays_open_without_hands(method: str, target: str, upgrade: bool) -> None:
    assert verdict(HANDS_OFF, method, target, upgrade) == ""


CLOSED = RuleSettings(namespaces=Lists(deny=("kube-*",)))
OPEN = RuleSettings(namespaces=Lists(allow=("team-*",), deny=("team-secret",)))


@pytest.mark.parametrize(
    ("method", "target", "rule"),
    [
        ("GET", "/api/v1/namespaces/kube-system/secrets", "denyNamespaces"),
        ("GET", "/api/v1/namespaces/%6bube-system/secrets", "denyNamespaces"),
        ("GET", "/api/v1/namespaces/kube-system", "denyNamespaces"),
        ("DELETE", "/api/v1/namespaces/kube-system", "denyNamespaces"),
        ("GET", "/api/v1/watch/namespaces/kube-system/secrets", "denyNamespaces"),
        ("GET", "/api/v1/proxy/namespaces/kube-system/pods/p", "denyNamespaces"),
        ("GET", "/api/v1/secrets", "denyNamespaces"),
        ("GET", "/api/v1/secrets?watch=1", "denyNamespaces"),
        ("GET", "/api/v1/secrets?fieldSelector=metadata.name%3Dx", "denyNamespaces"),
        ("GET", "/api/v1/watch/secrets", "denyNamespaces"),
        ("DELETE", "/apis/apps/v1/deployments", "denyNamespaces"),
        ("GET", "/apis/x.test/v1/widgets", "denyNamespaces"),
        ("GET", "/api/v1/nodes/n/proxy/pods", "denyNamespaces"),
        ("GET", "/api/v1//namespaces/kube-system/secrets", "rules"),
        ("GET", "/api/v1/namespaces/a/../kube-system/secrets", "rules"),
        ("GET", "/api/v1/namespaces/a%2f..%2fkube-system/secrets", "rules"),
        ("GET", "/api/v1/namespaces/a/secrets", ""),
        ("GET", "/api/v1/namespaces", ""),
        ("GET", "/api/v1/nodes?watch=1", ""),
        ("GET", "/apis/x.test/v1/widgets/one", ""),
        ("GET", "/api/v1", ""),
    ],
)
def test_closed_namespaces_stay_closed_in_lists_over_all_of_them(method: str, target: str, rule: str) -> None:
    assert verdict(CLOSED, method, target) == rule


@pytest.mark.parametrize(
    ("method", "target", "rule"),
    [
        ("GET", "/api/v1/namespaces/team-a/pods", ""),
        ("GET", "/api/v1/namespaces/team-secret/pods", "denyNamespaces"),
        ("GET", "/api/v1/namespaces/other/pods", "allowNamespaces"),
        ("GET", "/api/v1/namespaces", "allowNamespaces"),
        ("GET", "/api/v1/nodes", "allowNamespaces"),
        ("GET", "/api/v1/pods", "allowNamespaces"),
        ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", ""),
        ("GET", "/apis/apps/v1", ""),
        ("GET", "/version", ""),
    ],
)
def test_open_namespaces_are_the_only_ones(method: str, target: str, rule: str) -> None:
    assert verdict(OPEN, method, target) == rule


def test_paths_and_verbs_are_globs_and_a_denial_beats_a_permission() -> None:
    settings = RuleSettings(
        paths=Lists(allow=("/api/*", "/version"), deny=("*/secrets*",)), verbs=Lists(allow=("get", "list"))
    )
    assert verdict(settings, "GET", "/api/v1/pods?x=/secrets") == ""
    assert verdict(settings, "GET", "/version") == ""
    assert verdict(settings, "GET", "/version/x") == "allowPaths"
    assert verdict(settings, "GET", "/apis/apps/v1") == "allowPaths"
    assert verdict(settings, "GET", "/api/v1/namespaces/a/secrets/x") == "denyPaths"
    assert verdict(settings, "GET", "/api/v1/namespaces/a/%73ecrets/x") == "denyPaths"
    assert verdict(settings, "DELETE", "/api/v1/namespaces/a/pods/x") == "allowVerbs"
    assert verdict(RuleSettings(verbs=Lists(deny=("delete*",))), "DELETE", "/api/v1/namespaces/a/pods") == "denyVerbs"


def test_a_slash_at_the_end_opens_and_closes_nothing() -> None:
    """kube-apiserver serves such a path as the one without."""
    settings = RuleSettings(paths=Lists(allow=("/api*", "/version"), deny=("/api/v1/namespaces/*/secrets", "/api")))
    assert verdict(settings, "GET", "/api/v1/namespaces/a/secrets/") == "denyPaths"
    assert verdict(settings, "GET", "/api/") == "denyPaths"
    assert verdict(settings, "GET", "/version/") == ""
    assert verdict(settings, "GET", "/metrics/") == "allowPaths"
    assert verdict(RuleSettings(paths=Lists(deny=("/",))), "GET", "/") == "denyPaths"


def test_only_a_star_is_special_in_a_pattern() -> None:
    settings = RuleSettings(paths=Lists(deny=("/a?[bc]", "/x.y")))
    assert verdict(settings, "GET", "/axb") == ""
    assert verdict(settings, "GET", "/x_y") == ""
    assert verdict(settings, "GET", "/x.y") == "denyPaths"


def test_users_and_groups_are_closed_by_pattern() -> None:
    rules = PolicyRules(RuleSettings(deny_users=("*@other.example",), deny_groups=("contractors",)))
    assert rules.names_identities
    denied = rules.of_identity("eve@other.example", ())
    assert denied is not None
    assert denied.rule == "denyUsers"
    assert "eve" not in str(denied)
    grouped = rules.of_identity("bob", ("dev", "contractors"))
    assert grouped is not None
    assert grouped.rule == "denyGroups"
    assert rules.of_identity("bob", ("dev",)) is None
    assert not PolicyRules(RuleSettings(read_only=True)).names_identities


def test_what_is_remembered_of_a_request_is_not_said_of_its_upgrade() -> None:
    rules = PolicyRules(HANDS_OFF)
    target = f"{POD}/shell-of-tomorrow".encode()
    assert rules.of_request(b"GET", target, False) is None
    assert rules.of_request(b"GET", target, True) is not None
    assert rules.of_request(b"GET", target, False) is None


def test_what_is_remembered_is_bounded() -> None:
    rules = PolicyRules(READ_ONLY)
    for number in range(5_000):
        assert rules.of_request(b"GET", b"/api/v1/pods/%d" % number, False) is None
    assert rules.of_request(b"GET", b"/" + b"x" * 8_000, False) is None
    assert len(rules._verdicts) <= 1_024
    assert all(len(target) <= 512 for _, target, _ in rules._verdicts)
