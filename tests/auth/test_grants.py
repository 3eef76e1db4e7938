"""Who reaches which cluster: nobody, unless a grant says so."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.grants import Decisions, Grant, Grants, matches
from auth.identity import Identity
from auth.impersonation import StaticIdentity


def grant(name: str, *, users: str = "", groups: str = "", clusters: str = "*", **more: object) -> Grant:
    sets = frozenset(users.split()), frozenset(groups.split())
    return Grant(name, *sets, tuple(clusters.split()), **more)  # type: ignore[arg-type]


def user(name: str = "jane", *groups: str, credential_id: str = "id") -> Identity:
    return Identity(name, groups, "", (), "test", credential_id, 9e9)


def test_without_grants_nobody_reaches_anything_not_even_an_admin() -> None:
    for identity in (user(), user("admin", "kulvert:admins"), user("x", "system:masters")):
        decision = Grants([]).decide(identity, "prod")
        assert not decision.allowed
        assert decision.headers == ()
        assert "no grant" in decision.reason


def test_a_grant_names_users_groups_and_clusters() -> None:
    grants = Grants([grant("r", users="jane", groups="ops", clusters="prod-* edge")])
    assert grants.decide(user("jane"), "prod-1").allowed
    assert grants.decide(user("bob", "ops"), "edge").allowed
    assert not grants.decide(user("bob", "dev"), "edge").allowed
    assert not grants.decide(user("jane"), "edge-1").allowed
    assert not grants.decide(user("ops", "jane"), "edge").allowed


def test_system_authenticated_is_everybody() -> None:
    assert Grants([grant("all", groups="system:authenticated")]).decide(user("x"), "c").allowed


def test_the_decision_carries_headers_that_are_ready_to_be_written() -> None:
    decision = Grants([grant("r", users="jane")]).decide(user("jane", "dev"), "c")
    assert decision.headers == ((b"impersonate-user", b"jane"), (b"impersonate-group", b"dev"))
    assert (decision.rule, decision.allow_user_impersonation) == ("r", False)


def test_the_first_grant_of_the_file_decides_alone() -> None:
    first = grant("first", groups="dev", impersonate=StaticIdentity("viewer"))
    second = grant("second", users="jane", allow_user_impersonation=True)
    one = Grants([first, second]).decide(user("jane", "dev"), "c")
    other = Grants([second, first]).decide(user("jane", "dev"), "c")
    assert (one.rule, one.headers[0][1], one.allow_user_impersonation) == ("first", b"viewer", False)
    assert (other.rule, other.headers[0][1], other.allow_user_impersonation) == ("second", b"jane", True)


def test_a_protected_identity_is_denied_by_the_grant_that_matches() -> None:
    decision = Grants([grant("r", users="jane")]).decide(user("jane", "system:masters"), "c")
    assert not decision.allowed
    assert decision.rule == "r"
    assert "protected" in decision.reason
    allowed = Grants([grant("r", users="jane", allow_protected=frozenset({"system:masters"}))])
    assert allowed.decide(user("jane", "system:masters"), "c").allowed


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="ab", max_size=10))
def test_patterns_match_as_shells_do(pattern: str, name: str) -> None:
    assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    assert not matches("*a" * 31 + "*b", "a" * 63)
    assert time.process_time() - began < 0.05


def test_decisions_are_remembered_within_bounds_for_exactly_one_identity() -> None:
    decisions = Decisions(Grants([grant("r", groups="dev")]), capacity=10)
    first = decisions.decide(user("jane", "dev"), "c")
    assert decisions.decide(user("jane", "dev"), "c") is first
    assert not decisions.decide(user("jane"), "c").allowed  # the same credential id, another identity
    for number in range(100):
        decisions.decide(user("jane", "dev"), f"c{number}")
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
    decision = Grants(made).decide(user(name, *groups), cluster)
    assert (decision.rule, decision.allowed) == (wanted, bool(wanted))


@pytest.mark.parametrize("name", ["", "x\n"])
def test_a_user_that_no_header_can_name_is_denied_and_not_an_error(name: str) -> None:
    assert not Grants([grant("all", groups="system:authenticated")]).decide(user(name), "c").allowed
