"""As whom a user reaches a cluster: never as two people at once, and never as somebody protected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.decision import Decision, Impersonable
from auth.identity import Identity, credential_extra
from auth.impersonation import HUB, AsWhom, own_headers, requested_headers
from auth.tokenreview import SOURCE
from tunnel.impersonate import ImpersonationRefused, read_impersonation

JANE = Identity("jane", ("dev", "ops"), "u1", (*credential_extra("JTI=1"), ("team", ("a",))), "t", "JTI=1", 9e9)
NOBODY: frozenset[str] = frozenset()
MAY = Decision(True, "r", "ok", (), allow_user_impersonation=True)
ORIGINAL = ("kulvert.dev/original-user", ("jane",))
CREDENTIAL = credential_extra("JTI=1")[0]


def test_a_user_goes_as_authenticated() -> None:
    seen = read_impersonation(own_headers(JANE, None, NOBODY))
    assert (seen.user, seen.groups, seen.uid, seen.extra) == (JANE.user, JANE.groups, JANE.uid, JANE.extra)


def test_a_static_identity_replaces_the_user_and_all_that_speaks_of_the_user() -> None:
    seen = read_impersonation(own_headers(JANE, AsWhom("robot", ("bots",)), NOBODY))
    assert (seen.user, seen.groups, seen.uid) == ("robot", ("bots",), "")
    assert seen.extra == (ORIGINAL, CREDENTIAL)


def test_static_groups_replace_the_users_own_and_add_nothing_to_them() -> None:
    seen = read_impersonation(own_headers(JANE, AsWhom(groups=("viewers",)), NOBODY))
    assert (seen.user, seen.groups, seen.uid) == ("jane", ("viewers",), "u1")
    assert seen.extra == (*JANE.extra, ORIGINAL)


def test_a_static_user_without_groups_has_none() -> None:
    assert read_impersonation(own_headers(JANE, AsWhom("robot"), NOBODY)).groups == ()


@pytest.mark.parametrize(
    ("user", "groups", "static"),
    [
        ("jane", ("system:masters",), None),
        ("system:node:n1", (), None),
        ("", ("dev",), None),
        ("jane", (), AsWhom("system:kube-scheduler")),
        ("jane", (), AsWhom(groups=("system:masters",))),
    ],
)
def test_protected_identities_are_refused_unless_the_grant_names_them(
    user: str, groups: tuple[str, ...], static: AsWhom | None
) -> None:
    identity = Identity(user, groups, "", (), "t", "id", 9e9)
    with pytest.raises(ImpersonationRefused):
        own_headers(identity, static, NOBODY)
    allow = frozenset({"system:masters", "system:node:n1", "system:kube-scheduler", ""})
    if user:
        assert own_headers(identity, static, allow)
    else:
        with pytest.raises(ImpersonationRefused):
            own_headers(identity, static, allow)


@pytest.mark.parametrize(
    "key", ["kulvert.dev/original-user", "x.kulvert.dev/y", "authentication.kubernetes.io/node-name"]
)
def test_an_identity_cannot_bring_the_extras_that_others_write(key: str) -> None:
    identity = Identity("jane", (), "", ((key, ("mallory",)),), "t", "id", 9e9)
    with pytest.raises(ImpersonationRefused):
        own_headers(identity, None, NOBODY)


AS_BOB = [
    (b"Impersonate-User", b"bob"),
    (b"Impersonate-Group", b"qa"),
    (b"Impersonate-Uid", b"u2"),
    (b"Impersonate-Extra-Scopes", b"view"),
]


def test_ones_own_as_is_taken_as_a_whole_with_the_original_user_beside_it() -> None:
    wanted, headers = requested_headers(JANE, MAY, AS_BOB)
    seen = read_impersonation(headers)
    assert (wanted.user, wanted.groups, wanted.uid, wanted.extra) == ("bob", ("qa",), "u2", (("scopes", ("view",)),))
    assert (seen.user, seen.groups, seen.uid) == ("bob", ("qa",), "u2")
    assert seen.extra == (("scopes", ("view",)), ORIGINAL, CREDENTIAL)


@pytest.mark.parametrize("decision", [Decision(True, "r", ""), Decision(False, "r", "", allow_user_impersonation=True)])
def test_ones_own_as_is_refused_without_a_grant_for_it(decision: Decision) -> None:
    with pytest.raises(ImpersonationRefused, match="leave out --as"):
        requested_headers(JANE, decision, AS_BOB)


@pytest.mark.parametrize(
    "pairs",
    [
        [(b"Impersonate-Group", b"qa")],
        [(b"Impersonate-User", b"bob"), (b"impersonate-user", b"eve")],
        [(b"Impersonate-User", b"bob"), (b"Impersonate-Group", b"system:masters")],
        [(b"Impersonate-User", b"bob"), (b"Impersonate_Group", b"qa")],
        [(b"Impersonate-User", b"bob"), (b"Impersonate-Something", b"new")],
        [(b"Impersonate-User", b"bob"), (b"Impersonate-Extra-Kulvert.dev%2foriginal-User", b"eve")],
        [(b"Impersonate-User", b"bob"), (b"Impersonate-Extra-Authentication.kubernetes.io%2fcredential-Id", b"x")],
        [(b"Impersonate-User", b"bob"), (b"Impersonate-Extra-K8s.io%2fx", b"x")],
    ],
)
def test_a_grant_for_as_is_no_grant_for_everything(pairs: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ImpersonationRefused):
        requested_headers(JANE, MAY, pairs)


def test_a_grant_may_allow_a_protected_identity_by_name() -> None:
    decision = Decision(True, "r", "", (), True, frozenset({"system:masters"}))
    pairs = [(b"Impersonate-User", b"bob"), (b"Impersonate-Group", b"system:masters")]
    assert requested_headers(JANE, decision, pairs)


ascii_names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(user=ascii_names, groups=st.lists(ascii_names, max_size=3, unique=True))
def test_nothing_of_ones_own_groups_uid_or_extras_is_merged_into_as(user: str, groups: list[str]) -> None:
    pairs = [(b"Impersonate-User", user.encode()), *((b"Impersonate-Group", group.encode()) for group in groups)]
    seen = read_impersonation(requested_headers(JANE, MAY, pairs)[1])
    assert (seen.user, seen.groups, seen.uid) == (user, tuple(groups), "")
    assert seen.extra == (ORIGINAL, CREDENTIAL)


# --- mapping

HUBS = Identity(
    "system:serviceaccount:ci:deployer", ("system:serviceaccounts", "system:serviceaccounts:ci"), "u", (), HUB, "x", 9e9
)


@pytest.mark.parametrize(
    ("whom", "user", "groups"),
    [
        (AsWhom(user_prefix="oidc:"), "oidc:jane", ("dev", "ops")),
        (AsWhom(group_prefix="oidc:"), "jane", ("oidc:dev", "oidc:ops")),
        (AsWhom(group_map=(("dev", "developers"),)), "jane", ("developers", "ops")),
        (AsWhom(group_map=(("dev", "developers"),), group_prefix="o:"), "jane", ("developers", "o:ops")),
        (AsWhom(group_map=(("dev", "developers"),), drop_unmapped=True), "jane", ("developers",)),
        (AsWhom(group_map=(("dev", "x"), ("ops", "x"))), "jane", ("x",)),
        (AsWhom("robot", group_map=(("dev", "d"),), drop_unmapped=True), "robot", ("d",)),
        (AsWhom(groups=()), "jane", ()),
    ],
)
def test_names_are_mapped_as_the_grant_says(whom: AsWhom, user: str, groups: tuple[str, ...]) -> None:
    seen = read_impersonation(own_headers(JANE, whom, NOBODY))
    assert (seen.user, seen.groups) == (user, groups)
    assert ORIGINAL in seen.extra
    assert seen.uid == ("u1" if user == "jane" else "")
    assert (("team", ("a",)) in seen.extra) is (user == "jane")


@pytest.mark.parametrize(
    ("user", "groups", "whom"),
    [
        ("jane", ("dev",), AsWhom(group_map=(("dev", "system:masters"),))),
        ("masters", (), AsWhom(user_prefix="system:")),
        ("tem:masters", (), AsWhom(user_prefix="sys")),
        ("jane", ("tem:masters",), AsWhom(group_prefix="sys")),
        ("jane", ("system:masters",), AsWhom(user_prefix="x:")),
        ("jane", ("system:masters",), AsWhom(group_map=(("dev", "d"),))),
        ("jane", ("",), AsWhom(group_prefix="x:")),
        ("", (), AsWhom(user_prefix="x:")),
    ],
)
def test_no_mapping_makes_a_protected_or_an_empty_identity(user: str, groups: tuple[str, ...], whom: AsWhom) -> None:
    identity = Identity(user, groups, "", (), "t", "id", 9e9)
    with pytest.raises(ImpersonationRefused):
        own_headers(identity, whom, NOBODY)


def test_a_mapping_may_lead_to_a_protected_name_that_the_grant_allows() -> None:
    whom = AsWhom(group_map=(("ops", "system:masters"),), drop_unmapped=True)
    assert read_impersonation(own_headers(JANE, whom, frozenset({"system:masters"}))).groups == ("system:masters",)


def test_everybodys_own_group_gets_no_prefix() -> None:
    identity = Identity("jane", ("system:authenticated", "dev"), "", (), "t", "id", 9e9)
    assert read_impersonation(own_headers(identity, AsWhom(group_prefix="o:"), NOBODY)).groups == ("o:dev",)


def test_a_service_account_of_the_hub_can_be_told_apart_in_a_cluster_by_a_prefix() -> None:
    assert HUB == SOURCE
    seen = read_impersonation(own_headers(HUBS, AsWhom(user_prefix="hub:", group_prefix="hub:"), NOBODY))
    assert seen.user == "hub:system:serviceaccount:ci:deployer"
    assert seen.groups == ("hub:system:serviceaccounts", "hub:system:serviceaccounts:ci")
    with pytest.raises(ImpersonationRefused):
        own_headers(HUBS, None, NOBODY)


@pytest.mark.parametrize(
    "whom",
    [AsWhom(user_prefix="hub:"), AsWhom(group_prefix="hub:"), AsWhom(group_map=(("system:serviceaccounts:ci", "x"),))],
)
def test_nobody_else_becomes_one_of_the_hubs_service_accounts_by_a_prefix(whom: AsWhom) -> None:
    other = Identity(HUBS.user if whom.user_prefix else "jane", HUBS.groups, "", (), "oidc", "x", 9e9)
    with pytest.raises(ImpersonationRefused, match="does not come from the hub"):
        own_headers(other, whom, NOBODY)


# --- --as within names

SOME = Decision(True, "r", "", (), Impersonable(("dev-*",), ("team-*",)))


@pytest.mark.parametrize(
    ("pairs", "allowed"),
    [
        ([(b"Impersonate-User", b"dev-ada")], True),
        ([(b"Impersonate-User", b"dev-ada"), (b"Impersonate-Group", b"team-x")], True),
        ([(b"Impersonate-User", b"dev-ada"), (b"Impersonate-Group", b"system:authenticated")], True),
        ([(b"Impersonate-User", b"bob")], False),
        ([(b"Impersonate-User", b"jane")], False),
        ([(b"Impersonate-User", b"dev-ada"), (b"Impersonate-Group", b"ops")], False),
        ([(b"Impersonate-User", b"dev-ada"), (b"Impersonate-Uid", b"1")], False),
        ([(b"Impersonate-User", b"dev-ada"), (b"Impersonate-Extra-Scopes", b"x")], False),
    ],
)
def test_as_within_the_names_of_a_grant(pairs: list[tuple[bytes, bytes]], allowed: bool) -> None:
    if allowed:
        assert requested_headers(JANE, SOME, pairs)
    else:
        with pytest.raises(ImpersonationRefused, match="your grant"):
            requested_headers(JANE, SOME, pairs)


def test_a_pattern_lets_nobody_become_protected() -> None:
    decision = Decision(True, "r", "", (), Impersonable(("*",), ("*",)))
    with pytest.raises(ImpersonationRefused, match="protected"):
        requested_headers(JANE, decision, [(b"Impersonate-User", b"x"), (b"Impersonate-Group", b"system:masters")])


def test_who_is_passed_through_can_ask_to_be_nobody_else() -> None:
    decision = Decision(True, "r", "", allow_user_impersonation=True, pass_through=True)
    with pytest.raises(ImpersonationRefused, match="goes as itself"):
        requested_headers(JANE, decision, AS_BOB)
