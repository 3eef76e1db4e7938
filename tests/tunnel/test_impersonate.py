"""Whom a head names, and whom no head may name, at either end of the tunnel."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunnel.impersonate import (
    CREDENTIAL_ID,
    Impersonation,
    ImpersonationRefused,
    checked_impersonation,
    headers_for,
    protected_extra,
    protected_identity,
    read_impersonation,
)

NOBODY: frozenset[str] = frozenset()
names = st.text(min_size=1, max_size=30).filter(lambda s: s.isprintable() and s == s.strip())
keys = st.from_regex(r"[a-z0-9./%: _~-]{1,20}", fullmatch=True).filter(lambda s: " " not in s)
extras = st.dictionaries(keys, st.lists(names, min_size=1, max_size=3).map(tuple), max_size=3)


def test_an_identity_becomes_headers_as_client_go_writes_them() -> None:
    pairs = headers_for("jane@example.org", ("dev", "ops"), "42", ((CREDENTIAL_ID, ("JTI=1", "JTI=2")),))
    assert pairs == (
        (b"impersonate-user", b"jane@example.org"),
        (b"impersonate-group", b"dev"),
        (b"impersonate-group", b"ops"),
        (b"impersonate-uid", b"42"),
        (b"impersonate-extra-authentication.kubernetes.io%2fcredential-id", b"JTI=1"),
        (b"impersonate-extra-authentication.kubernetes.io%2fcredential-id", b"JTI=2"),
    )


def test_system_authenticated_and_repeated_groups_are_left_out() -> None:
    pairs = headers_for("jane", ("dev", "system:authenticated", "dev"), "", ())
    assert pairs == ((b"impersonate-user", b"jane"), (b"impersonate-group", b"dev"))


@given(user=names, groups=st.lists(names, unique=True, max_size=4), uid=st.just("") | names, extra=extras)
@example(user="jane", groups=["Équipe plateforme"], uid="", extra={"a%2fb": ("x",)})
def test_what_one_end_writes_the_other_reads(
    user: str, groups: list[str], uid: str, extra: dict[str, tuple[str, ...]]
) -> None:
    groups = [group for group in groups if group != "system:authenticated"]
    frozen = tuple(extra.items())
    read = read_impersonation(headers_for(user, groups, uid, frozen))
    assert read == Impersonation(user, tuple(groups), uid, frozen)


@given(
    user=st.text(max_size=20),
    group=st.text(max_size=20),
    value=st.text(max_size=20),
    key=st.text(max_size=20),
)
@example(user="a\r\nImpersonate-Group: system:masters", group="g", value="v", key="k")
@example(user="a", group="g\n", value="v", key="k\r\nx")
def test_no_name_can_break_out_of_its_header(user: str, group: str, value: str, key: str) -> None:
    try:
        pairs = headers_for(user, (group,), "", ((key, (value,)),))
    except ImpersonationRefused:
        return
    for name, content in pairs:
        assert name == name.lower()
        assert not set(name) & set(b"\r\n\0:% /".replace(b"%", b""))
        assert content == content.strip()
        assert content
        assert not set(content) & set(range(32))


@pytest.mark.parametrize(
    "bad",
    [
        "",
        " jane",
        "jane ",
        "ja\nne",
        "ja\rne",
        "ja\0ne",
        "ja\tne",
        "jane\u200b",
        "ja\u202ene",
        "ja\u00a0ne",
        "\ud800",
    ],
)
def test_values_that_a_header_would_change_or_hide_are_refused(bad: str) -> None:
    with pytest.raises(ImpersonationRefused):
        headers_for(bad, (), "", ())
    with pytest.raises(ImpersonationRefused):
        headers_for("jane", (), "", (("key", (bad,)),))
    if bad:
        with pytest.raises(ImpersonationRefused):
            headers_for("jane", (), bad, ())


@pytest.mark.parametrize("key", ["", "Upper", "with space", "new\nline", "é", "a\0"])
def test_extra_keys_that_kube_apiserver_would_fold_are_refused(key: str) -> None:
    with pytest.raises(ImpersonationRefused):
        headers_for("jane", (), "", ((key, ("v",)),))


@pytest.mark.parametrize(
    ("user", "groups"),
    [
        ("jane", ("system:masters",)),
        ("jane", ("dev", "system:nodes")),
        ("jane", ("system:unauthenticated",)),
        ("jane", ("system:serviceaccounts",)),
        ("jane", ("system:serviceaccounts:kube-system",)),
        ("jane", ("system:kube-scheduler",)),
        ("jane", ("system:anything-new",)),
        ("jane", ("kubeadm:cluster-admins",)),
        ("jane", ("",)),
        ("", ()),
        ("", ("dev",)),
        ("system:masters", ()),
        ("system:node:worker-1", ()),
        ("system:kube-controller-manager", ()),
        ("system:serviceaccount:kube-system:admin", ()),
        ("system:anonymous", ()),
        ("system:apiserver", ()),
        ("System:Masters", ()),
        (" system:masters", ()),
        ("ｓｙｓｔｅｍ：masters", ()),
        ("ѕystem:masters", ()),
        ("ſystem:masters", ()),
        ("system：masters", ()),
    ],
)
def test_protected_identities_are_refused_at_both_ends(user: str, groups: tuple[str, ...]) -> None:
    assert protected_identity(user, groups) is not None
    pairs = [
        (b"Impersonate-User", user.encode()),
        *((b"Impersonate-Group", group.encode()) for group in groups),
    ]
    with pytest.raises(ImpersonationRefused):
        checked_impersonation(pairs, NOBODY)


@pytest.mark.parametrize(
    ("user", "groups"),
    [
        ("jane", ("dev", "system:authenticated")),
        ("systems", ("Команда", "Система", "Équipe", "my-system:x")),
        ("kulvert", ("kulvert:admins",)),
    ],
)
def test_ordinary_names_are_not_protected(user: str, groups: tuple[str, ...]) -> None:
    assert protected_identity(user, groups) is None


def test_an_allowed_service_account_brings_its_own_groups_and_no_others() -> None:
    user = "system:serviceaccount:argocd:controller"
    allow = frozenset({user})
    assert protected_identity(user, ("system:serviceaccounts", "system:serviceaccounts:argocd"), allow) is None
    assert protected_identity(user, ("system:serviceaccounts:kube-system",), allow) is not None
    assert protected_identity("jane", ("system:serviceaccounts:argocd",), allow) is not None
    assert protected_identity("system:serviceaccount:argocd:other", (), allow) is not None


def test_only_exact_names_are_allowed() -> None:
    assert protected_identity("jane", ("system:masters",), frozenset({"system:masters"})) is None
    assert protected_identity("jane", ("System:masters",), frozenset({"system:masters"})) is not None
    assert protected_identity("", (), frozenset({""})) is not None


def test_the_agent_takes_a_well_formed_head_and_passes_over_other_headers() -> None:
    head = [
        (b"host", b"a"),
        (b"accept", b"*/*"),
        *headers_for("jane", ("dev",), "7", ((CREDENTIAL_ID, ("x",)),)),
    ]
    for _ in range(2):  # the second time from memory
        checked_impersonation(head, NOBODY)


@pytest.mark.parametrize(
    "head",
    [
        [],
        [(b"host", b"a")],
        [(b"impersonate-user", b"")],
        [(b"impersonate-user", b" ")],
        [(b"impersonate-user", b"jane"), (b"Impersonate-User", b"root")],
        [(b"impersonate-group", b"dev")],
        [(b"impersonate-uid", b"1")],
        [(b"impersonate-user", b"jane"), (b"impersonate-uid", b"1"), (b"impersonate-uid", b"2")],
        [(b"impersonate-user", b"jane"), (b"impersonate_group", b"system:masters")],
        [(b"impersonate-user", b"jane"), (b"Impersonate-Groups", b"x")],
        [(b"impersonate-user", b"jane"), (b"impersonate-extra-", b"x")],
        [(b"impersonate-user", b"jane"), (b"impersonate-extra", b"x")],
        [(b"impersonate-user", b"jane"), (b"impersonate", b"x")],
        [(b"impersonate-user", b"jane"), (b"impersonate-later", b"x")],
        [(b"impersonate-user", b"jane"), (b"impersonate-extra-%41", b"x")],
        [(b"impersonate-user", b"jane"), (b"impersonate-extra-%61", b"x")],
        [(b"impersonate-user", b"jane"), (b"impersonate-extra-a%", b"x")],
        [(b"impersonate-user", b"jane"), (b"impersonate-extra-a%0a", b"x")],
        [(b"impersonate-user", b"jane"), (b"impersonate-extra-a%zz", b"x")],
        [(b"impersonate-user", b"jane"), (b"impersonate-extra-x%2fy", b"\xff")],
        [(b"impersonate-user", b"jane"), (b"impersonate-group", b"")],
        [(b"impersonate-user", b"\xc3")],
        [(b"impersonate-user", b"jane\r\n")],
        [
            (b"impersonate-user", b"jane"),
            (b"impersonate-extra-authentication.kubernetes.io%2fnode-name", b"n"),
        ],
    ],
)
def test_a_head_without_exactly_one_valid_impersonation_is_refused(head: list[tuple[bytes, bytes]]) -> None:
    for _ in range(2):
        with pytest.raises(ImpersonationRefused):
            checked_impersonation(head, NOBODY)


def test_what_one_policy_allows_is_not_remembered_for_another() -> None:
    head = headers_for("jane", ("system:masters",), "", ())
    checked_impersonation(head, frozenset({"system:masters"}))
    with pytest.raises(ImpersonationRefused):
        checked_impersonation(head, NOBODY)


def test_a_large_head_is_judged_without_being_remembered() -> None:
    head = headers_for("jane", [f"group-{number}" for number in range(1000)], "", ())
    checked_impersonation(head, NOBODY)
    with pytest.raises(ImpersonationRefused):
        checked_impersonation([*head, (b"impersonate-group", b"system:masters")], NOBODY)


@pytest.mark.parametrize(
    ("key", "reserved"),
    [
        (CREDENTIAL_ID, False),
        ("kulvert.dev/original-user", False),
        ("scopes", False),
        ("authentication.kubernetes.io/node-name", True),
        ("kubernetes.io/x", True),
        ("anything.k8s.io/x", True),
        ("notk8s.io/x", False),
    ],
)
def test_extra_keys_of_kubernetes_domains_are_reserved(key: str, reserved: bool) -> None:
    assert (protected_extra(key) is not None) == reserved


def test_a_refusal_does_not_repeat_a_long_or_odd_name_raw() -> None:
    with pytest.raises(ImpersonationRefused) as refused:
        headers_for("x\n" * 500, (), "", ())
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
