"""Who reaches which cluster: nobody, unless a grant says so."""

from __future__ import annotations

import timeit
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.grants.access import Access
from auth.grants.grant import ServiceAccount
from auth.grants.grants import Decisions, Grant, Grants
from auth.grants.labelselector import LabelSelector, Requirement
from auth.identity import Identity
from auth.impersonation import AsWhom
from tunnel.requestinfo import RequestInfo, request_info

NOW = 1_000.0


def grant(name: str, *, users: str = "", groups: str = "", clusters: str = "*", **more: object) -> Grant:
    sets = frozenset(users.split()), frozenset(groups.split())
    return Grant(name, *sets, tuple(clusters.split()), **more)  # type: ignore[arg-type]


def user(name: str = "jane", *groups: str, credential_id: str = "id") -> Identity:
    return Identity(name, groups, "", (), "test", credential_id, 9e9)


def test_without_grants_nobody_reaches_anything_not_even_an_admin() -> None:
    for identity in (user(), user("admin", "kulvert:admins"), user("x", "system:masters")):
        decision = Grants([]).decide(identity, "prod", NOW)
        assert not decision.allowed
        assert decision.headers == ()
        assert "no grant" in decision.reason


def test_a_grant_names_users_groups_and_clusters() -> None:
    grants = Grants([grant("r", users="jane", groups="ops", clusters="prod-* edge")])
    assert grants.decide(user("jane"), "prod-1", NOW).allowed
    assert grants.decide(user("bob", "ops"), "edge", NOW).allowed
    assert not grants.decide(user("bob", "dev"), "edge", NOW).allowed
    assert not grants.decide(user("jane"), "edge-1", NOW).allowed
    assert not grants.decide(user("ops", "jane"), "edge", NOW).allowed


def test_system_authenticated_is_everybody() -> None:
    assert Grants([grant("all", groups="system:authenticated")]).decide(user("x"), "c", NOW).allowed


def test_the_decision_carries_headers_that_are_ready_to_be_written() -> None:
    decision = Grants([grant("r", users="jane")]).decide(user("jane", "dev"), "c", NOW)
    assert decision.headers == ((b"impersonate-user", b"jane"), (b"impersonate-group", b"dev"))
    assert (decision.rule, decision.allow_user_impersonation) == ("r", False)


def test_the_first_grant_of_the_file_decides_alone() -> None:
    first = grant("first", groups="dev", impersonate=AsWhom("viewer"))
    second = grant("second", users="jane", allow_user_impersonation=True)
    one = Grants([first, second]).decide(user("jane", "dev"), "c", NOW)
    other = Grants([second, first]).decide(user("jane", "dev"), "c", NOW)
    assert (one.rule, one.headers[0][1], one.allow_user_impersonation) == ("first", b"viewer", False)
    assert (other.rule, other.headers[0][1], other.allow_user_impersonation) == ("second", b"jane", True)


def test_a_protected_identity_is_denied_by_the_grant_that_matches() -> None:
    decision = Grants([grant("r", users="jane")]).decide(user("jane", "system:masters"), "c", NOW)
    assert not decision.allowed
    assert decision.rule == "r"
    assert "protected" in decision.reason
    allowed = Grants([grant("r", users="jane", allow_protected=frozenset({"system:masters"}))])
    assert allowed.decide(user("jane", "system:masters"), "c", NOW).allowed


def test_decisions_are_remembered_within_bounds_for_exactly_one_identity() -> None:
    decisions = Decisions(Grants([grant("r", groups="dev")]), capacity=10)
    first = decisions.decide(user("jane", "dev"), "c", NOW)
    assert decisions.decide(user("jane", "dev"), "c", NOW) is first
    assert not decisions.decide(user("jane"), "c", NOW).allowed  # the same credential id, another identity
    for number in range(100):
        decisions.decide(user("jane", "dev"), f"c{number}", NOW)
    assert len(decisions._made) == 10


names = st.sampled_from(["a", "b", "c"])
some = st.lists(names, max_size=2).map(" ".join)


@given(
    st.lists(st.tuples(some, some, st.sampled_from(["*", "a", "a b", "c*"])), max_size=5),
    names,
    st.lists(names, max_size=2),
    names,
)
def test_the_index_decides_as_reading_every_grant_would(
    rows: list[tuple[str, str, str]], name: str, groups: list[str], cluster: str
) -> None:
    made = [grant(str(n), users=u, groups=g, clusters=c) for n, (u, g, c) in enumerate(rows)]
    wanted = next((g.name for g in made if (name in g.users or g.groups & set(groups)) and g.covers(cluster)), "")
    decision = Grants(made).decide(user(name, *groups), cluster, NOW)
    assert (decision.rule, decision.allowed) == (wanted, bool(wanted))


@pytest.mark.parametrize("name", ["", "x\n"])
def test_a_user_that_no_header_can_name_is_denied_and_not_an_error(name: str) -> None:
    assert not Grants([grant("all", groups="system:authenticated")]).decide(user(name), "c", NOW).allowed


# --- requests

POD = "/api/v1/namespaces/team-a/pods/web"
READ_ONLY = Access(read_only=True)


def ask(target: str, method: str = "GET") -> RequestInfo:
    path, _, query = target.partition("?")
    return request_info(method, path.encode(), query.encode())


def test_the_first_grant_that_also_allows_the_request_decides() -> None:
    read = grant("read", groups="dev", access=READ_ONLY)
    write = grant("write", groups="dev", access=Access(namespaces=("team-*",)), impersonate=AsWhom("writer"))
    decisions = Decisions(Grants([read, write]))
    ada = user("ada", "dev")
    assert decisions.decide(ada, "c", NOW, ask(POD)).rule == "read"
    written = decisions.decide(ada, "c", NOW, ask(POD, "DELETE"))
    assert (written.rule, written.headers[0][1]) == ("write", b"writer")
    assert decisions.decide(ada, "c", NOW, ask(f"{POD}/exec")).rule == "write"
    assert not decisions.decide(ada, "c", NOW, ask("/api/v1/nodes/n", "DELETE")).allowed


def test_a_denial_names_the_grant_that_came_nearest_and_why() -> None:
    grants = Grants(
        [
            grant("verbs", groups="dev", access=Access(verbs=frozenset({"list"}))),
            grant("spaces", groups="dev", access=Access(namespaces=("other",))),
        ]
    )
    decision = grants.decide(user("ada", "dev"), "c", NOW, ask(POD))
    assert (decision.allowed, decision.rule, decision.headers) == (False, "", ())
    assert decision.reason == (
        "no grant lets 'ada' reach cluster 'c' for this: "
        "grant 'spaces' comes nearest, which allows namespaces other alone"
    )


def test_a_cluster_may_be_reached_if_any_grant_lets_anything_through() -> None:
    refused = grant("refused", users="ada", access=READ_ONLY, impersonate=AsWhom(groups=("system:masters",)))
    assert Grants([refused, grant("r", users="ada", access=READ_ONLY)]).decide(user("ada"), "c", NOW).rule == "r"
    denied = Grants([refused]).decide(user("ada"), "c", NOW)
    assert (denied.allowed, denied.rule) == (False, "refused")
    assert not Grants([]).decide(user("ada"), "c", NOW).allowed


def test_a_protected_identity_does_not_slip_to_a_later_grant() -> None:
    refused = grant("refused", users="ada", impersonate=AsWhom(groups=("system:masters",)))
    decision = Grants([refused, grant("r", users="ada")]).decide(user("ada"), "c", NOW, ask(POD))
    assert (decision.allowed, decision.rule) == (False, "refused")


# --- time, labels, service accounts


def test_a_grant_is_absent_from_the_second_on_that_it_expires_in() -> None:
    decisions = Decisions(
        Grants([grant("soon", users="ada", expires=NOW + 10), grant("later", users="ada", expires=NOW + 20)])
    )
    rules = [decisions.decide(user("ada"), "c", NOW + at).rule for at in (0, 9.999, 10, 19.999, 20, 30)]
    assert rules == ["soon", "soon", "later", "later", "", ""]
    assert decisions.decide(user("ada"), "c", NOW).expires == NOW + 10  # the clock was wrong, and is set back
    gone = decisions.decide(user("ada"), "c", NOW + 20)
    assert "grant 'soon' has expired" in gone.reason


def test_clusters_and_selector_must_both_match() -> None:
    env = LabelSelector((Requirement("env", "In", frozenset({"dev"})),))
    both = Decisions(Grants([grant("r", users="ada", clusters="edge-*", selector=env)]))
    dev, prod = (("env", "dev"),), (("env", "prod"),)
    assert both.decide(user("ada"), "edge-1", NOW, None, dev).allowed
    assert not both.decide(user("ada"), "edge-1", NOW, None, prod).allowed
    assert not both.decide(user("ada"), "prod-1", NOW, None, dev).allowed
    assert both.decide(user("ada"), "edge-1", NOW, None, (("env", "dev"),)).allowed
    alone = Grants([Grant("r", frozenset({"ada"}), selector=env)])
    assert alone.decide(user("ada"), "prod-1", NOW, None, dev).allowed
    assert not alone.decide(user("ada"), "prod-1", NOW, None, ()).allowed


def test_a_grant_without_clusters_covers_none() -> None:
    assert not Grant("r", frozenset({"ada"})).covers("c", (("env", "dev"),))


DEPLOYER = ServiceAccount("ci", "deployer")
ARGOCD = ServiceAccount("ci", "argocd", "edge-7")


def account(name: str, source: str, cluster: str = "") -> Identity:
    groups = ("system:serviceaccounts", "system:serviceaccounts:ci")
    return Identity(f"system:serviceaccount:ci:{name}", groups, "", (), source, f"JTI={name}{cluster}", 9e9, cluster)


def test_a_service_account_of_the_hub_is_one_by_the_hubs_word_alone() -> None:
    hub = AsWhom(user_prefix="hub:", group_prefix="hub:")
    grants = Grants([Grant("r", accounts=frozenset({DEPLOYER}), clusters=("*",), impersonate=hub)])
    fixed = Grants([Grant("r", accounts=frozenset({DEPLOYER}), clusters=("*",), impersonate=AsWhom("ci", ()))])
    assert fixed.decide(account("deployer", "hub"), "c", NOW).allowed
    assert not fixed.decide(account("deployer", "oidc"), "c", NOW).allowed
    decision = grants.decide(account("deployer", "hub"), "c", NOW)
    assert decision.headers[0] == (b"impersonate-user", b"hub:system:serviceaccount:ci:deployer")
    assert not grants.decide(account("deployer", "oidc"), "c", NOW).allowed
    assert not grants.decide(account("other", "hub"), "c", NOW).allowed
    assert not grants.decide(account("deployer", "hub", "edge-7"), "edge-7", NOW).allowed


def test_a_clusters_own_service_account_goes_there_as_itself_and_nowhere_else() -> None:
    passing = Grant("p", accounts=frozenset({ARGOCD}), clusters=("*",), pass_through=True, access=READ_ONLY)
    argocd = account("argocd", "cluster", "edge-7")
    decision = Grants([passing]).decide(argocd, "edge-7", NOW, ask(POD))
    assert (decision.allowed, decision.pass_through, decision.headers) == (True, True, ())
    assert not decision.allow_user_impersonation
    assert not Grants([passing]).decide(argocd, "edge-7", NOW, ask(POD, "DELETE")).allowed
    assert not Grants([passing]).decide(argocd, "edge-8", NOW, ask(POD)).allowed
    assert not Grants([passing]).decide(account("argocd", "cluster", "edge-8"), "edge-8", NOW).allowed
    assert not Grants([passing]).decide(account("argocd", "hub"), "edge-7", NOW).allowed


@pytest.mark.parametrize(
    "more",
    [
        {"users": "system:serviceaccount:ci:argocd"},
        {"groups": "system:serviceaccounts"},
        {"groups": "system:authenticated"},
        {"accounts": frozenset({ServiceAccount("ci", "argocd")})},
        {"accounts": frozenset({ARGOCD}), "pass_through": False},
        {"accounts": frozenset({ServiceAccount("ci", "argocd", "edge-8")})},
    ],
)
def test_nothing_but_its_own_subject_lets_a_clusters_service_account_through(more: dict[str, Any]) -> None:
    grants = Grants([grant("r", **{"pass_through": True} | more)])
    assert not grants.decide(account("argocd", "cluster", "edge-7"), "edge-7", NOW).allowed


def test_memory_does_not_mix_up_labels() -> None:
    env = LabelSelector((Requirement("env", "In", frozenset({"dev"})),))
    decisions = Decisions(Grants([grant("r", users="ada", selector=env)]))
    for labels in ((), (("env", "dev"),), (("env", "prod"),), (("env", "dev"),)):
        assert decisions.decide(user("ada"), "c", NOW, None, labels).allowed is (labels == (("env", "dev"),))


def test_a_request_costs_little_once_it_is_known() -> None:
    """A budget with room for a slow machine: see docs/architecture.md for what was measured."""
    wide = Access(verbs=frozenset({"get", "list"}), namespaces=("other", "team-*"))
    decisions = Decisions(Grants([grant("a", groups="dev", access=READ_ONLY), grant("b", groups="dev", access=wide)]))
    ada, info = user("ada", "dev"), ask(POD)
    decisions.decide(ada, "c", NOW, info)
    assert decisions.decide(ada, "c", NOW, info) is decisions.decide(ada, "c", NOW, info)
    assert min(timeit.repeat(lambda: decisions.decide(ada, "c", NOW, info), number=1_000, repeat=5)) < 0.01
