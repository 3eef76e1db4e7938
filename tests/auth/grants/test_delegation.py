"""Owners grant no further than they have it themselves, in any field, by any way round."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.decision import Impersonable
from auth.grants.access import KINDS, Access
from auth.grants.delegation import DEPTH, contained, in_force, is_administrator, manages, may_change, undelegated
from auth.grants.grant import Grant, Maker, ServiceAccount
from auth.grants.grants import Grants
from auth.grants.labelselector import LabelSelector, Requirement
from auth.grants.resources import ResourcePattern
from auth.identity import Identity
from auth.impersonation import AsWhom
from tunnel.requestinfo import request_info

NOW = 1_000.0
ADMINS = frozenset({"kulvert:admins"})
ROOT = Identity("root", ("kulvert:admins",), "", (), "x509", "r", math.inf)
OWNER = Identity("olga", ("owners",), "", (), "oidc", "o", math.inf)
BOB = Identity("bob", ("dev",), "", (), "oidc", "b", math.inf)
DEV = LabelSelector((Requirement("env", "In", frozenset({"dev"})),))


def resources(*texts: str) -> tuple[ResourcePattern, ...]:
    found = [ResourcePattern.parse(text) for text in texts]
    assert None not in found
    return tuple(one for one in found if one is not None)


LIMITS = Access(
    verbs=frozenset({"get", "list", "create"}),
    resources=resources("pods", "pods/log", "pods/exec", "*.apps"),
    namespaces=("team-*",),
    urls=("/metrics",),
    interactive=frozenset({"exec"}),
)
OWNED = Grant(
    "owned",
    groups=frozenset({"owners"}),
    clusters=("edge-*",),
    selector=DEV,
    impersonate=AsWhom(group_prefix="k:"),
    allow_protected=frozenset({"system:masters"}),
    allow_user_impersonation=Impersonable(("dev-*",), ("team-*",)),
    access=LIMITS,
    delegate=True,
    expires=NOW + 100,
)


def given_to_bob(**more: Any) -> Grant:
    """The same, for somebody else."""
    fields: dict[str, Any] = {"name": "bobs", "groups": frozenset(), "users": frozenset({"bob"}), "delegate": False}
    return replace(OWNED, **(fields | more))


def limits(**more: Any) -> dict[str, Any]:
    return {"access": replace(LIMITS, **more)}


LESS: list[dict[str, Any]] = [
    {},
    {"clusters": ("edge-7",)},
    {"clusters": ("edge-a*", "edge-7")},
    {"selector": LabelSelector((*DEV.requirements, Requirement("x", "Exists")))},
    {"expires": NOW + 50},
    {"delegate": True},
    {"allow_protected": frozenset()},
    {"allow_user_impersonation": False},
    {"allow_user_impersonation": Impersonable(("dev-a*",))},
    {"groups": frozenset({"system:authenticated"})},
    {"priority": -100},
    limits(read_only=True),
    limits(verbs=frozenset({"get"})),
    limits(resources=resources("deployments.apps/scale", "pods")),
    limits(namespaces=("team-a",)),
    limits(urls=()),
    limits(urls=("/metrics", "/version")),
    limits(interactive=frozenset()),
]
MORE: list[tuple[dict[str, Any], str]] = [
    ({"clusters": ("*",)}, "clusters"),
    ({"clusters": ("edge-7", "prod-1")}, "clusters"),
    ({"clusters": ()}, "clusters"),
    ({"selector": None}, "clusterSelector"),
    ({"selector": LabelSelector((Requirement("env", "Exists"),))}, "clusterSelector"),
    ({"selector": LabelSelector((Requirement("env", "In", frozenset({"dev", "prod"})),))}, "clusterSelector"),
    ({"expires": math.inf}, "ends later"),
    ({"expires": NOW + 101}, "ends later"),
    ({"impersonate": None}, "impersonate"),
    ({"impersonate": AsWhom("root")}, "impersonate"),
    ({"impersonate": AsWhom(group_prefix="k:", user_prefix="a")}, "impersonate"),
    ({"allow_protected": frozenset({"system:masters", "system:nodes"})}, "allowProtected"),
    ({"allow_user_impersonation": True}, "allowUserImpersonation"),
    ({"allow_user_impersonation": Impersonable(("*",))}, "allowUserImpersonation"),
    ({"allow_user_impersonation": Impersonable(("dev-*",), ("*",))}, "allowUserImpersonation"),
    ({"pass_through": True, "accounts": frozenset({ServiceAccount("a", "b", "edge-7")})}, "passThrough"),
    ({"access": None}, "access"),
    (limits(verbs=None), "verbs"),
    (limits(verbs=frozenset({"*"})), "verbs"),
    (limits(verbs=frozenset({"delete"})), "verbs"),
    (limits(read_only=True, verbs=None), "verbs"),
    (limits(resources=None), "resources"),
    (limits(resources=resources("*")), "resources"),
    (limits(resources=resources("pods/*")), "resources"),
    (limits(resources=resources("pods.apps", "pods", "secrets")), "resources"),
    (limits(namespaces=None), "namespaces"),
    (limits(namespaces=("*",)), "namespaces"),
    (limits(namespaces=("team-a", "kube-system")), "namespaces"),
    (limits(urls=("/metrics", "/debug/*")), "nonResourceURLs"),
    (limits(urls=("*",)), "nonResourceURLs"),
    (limits(interactive=None), "interactive"),
    (limits(interactive=KINDS), "interactive"),
    (limits(interactive=frozenset({"attach"})), "interactive"),
]


@pytest.mark.parametrize("change", LESS)
def test_an_owner_may_grant_the_same_or_less(change: dict[str, Any]) -> None:
    assert contained(given_to_bob(**change), OWNED) == ""
    assert may_change(OWNER, None, given_to_bob(**change), Grants([OWNED]), ADMINS, NOW) == ""


@pytest.mark.parametrize(("change", "field"), MORE)
def test_an_owner_may_grant_nothing_more(change: dict[str, Any], field: str) -> None:
    why = may_change(OWNER, None, given_to_bob(**change), Grants([OWNED]), ADMINS, NOW)
    assert "it goes beyond your grant 'owned'" in why
    assert field in why
    made = replace(given_to_bob(), maker=Maker("olga", ("owners",), "oidc"))
    assert field in may_change(OWNER, made, given_to_bob(**change), Grants([OWNED]), ADMINS, NOW)
    assert field in may_change(OWNER, replace(made, **change), given_to_bob(), Grants([OWNED]), ADMINS, NOW)
    assert field in may_change(OWNER, replace(made, **change), None, Grants([OWNED]), ADMINS, NOW)
    assert may_change(ROOT, made, given_to_bob(**change), Grants([OWNED]), ADMINS, NOW) == ""


def test_read_only_bounds_what_hangs_on_it() -> None:
    outer = replace(OWNED, access=Access(read_only=True))
    assert contained(given_to_bob(access=Access(read_only=True)), outer) == ""
    assert "verbs" in contained(given_to_bob(access=Access(namespaces=("a",))), outer)
    listing = Access(verbs=frozenset({"list"}), interactive=frozenset())
    assert contained(given_to_bob(access=listing), outer) == ""
    assert "interactive" in contained(given_to_bob(access=replace(listing, interactive=None)), outer)


@pytest.mark.parametrize(
    "identity",
    [
        BOB,
        Identity("olga", (), "", (), "oidc", "o", math.inf),
        Identity("owners", ("olga",), "", (), "oidc", "o", math.inf),
        Identity("x", ("owners",), "", (), "cluster", "o", math.inf, "edge-7"),
        Identity("x", ("kulvert:admins",), "", (), "cluster", "o", math.inf, "edge-7"),
    ],
)
def test_nobody_else_changes_anything(identity: Identity) -> None:
    grants = Grants([OWNED, replace(given_to_bob(), delegate=False)])
    made = replace(given_to_bob(), maker=Maker("olga", ("owners",), "oidc"))
    for old, new in ((None, replace(given_to_bob(), name="n")), (made, None), (made, made), (OWNED, None)):
        assert may_change(identity, old, new, grants, ADMINS, NOW)
    assert not is_administrator(identity, ADMINS)


def test_what_an_administrator_wrote_is_the_administrators_and_so_is_its_name() -> None:
    grants = Grants([OWNED])
    assert "administrator's" in may_change(OWNER, OWNED, None, grants, ADMINS, NOW)
    assert "administrator's" in may_change(OWNER, OWNED, replace(OWNED, users=frozenset({"x"})), grants, ADMINS, NOW)
    assert "already" in may_change(OWNER, None, given_to_bob(name="owned"), grants, ADMINS, NOW)
    assert may_change(ROOT, OWNED, None, grants, ADMINS, NOW) == ""


def test_an_expired_grant_delegates_nothing() -> None:
    assert may_change(OWNER, None, given_to_bob(expires=NOW + 10), Grants([OWNED]), ADMINS, NOW + 100)


def test_a_grant_that_decides_before_it_bounds_what_its_owner_gives() -> None:
    """Olga is a viewer on edge-7: by what she delegates nobody is more there."""
    viewer = Grant("viewer", users=frozenset({"olga"}), clusters=("edge-7",), impersonate=AsWhom("viewer"))
    owned = Grant("owned", groups=frozenset({"owners"}), clusters=("edge-*",), delegate=True)
    bobs = Grant("bobs", users=frozenset({"bob"}), clusters=("edge-*",))
    why = undelegated(OWNER, bobs, Grants([viewer, owned]), NOW)
    assert "grant 'viewer' comes before it for you" in why
    assert undelegated(OWNER, replace(bobs, clusters=("edge-8",)), Grants([viewer, owned]), NOW) == ""
    assert undelegated(OWNER, bobs, Grants([owned, viewer]), NOW) == ""


def test_who_has_a_protected_identity_cannot_delegate_what_he_cannot_use() -> None:
    owner = replace(OWNER, groups=("owners", "system:nodes"))
    owned = Grant("owned", groups=frozenset({"owners"}), clusters=("edge-*",), delegate=True)
    assert "cannot use it yourself" in undelegated(owner, Grant("b", clusters=("edge-1",)), Grants([owned]), NOW)


def made_by(user: str, grant: Grant) -> Grant:
    return replace(grant, maker=Maker(user, (), "oidc"))


def test_what_hangs_on_a_grant_goes_with_it() -> None:
    top = Grant("top", users=frozenset({"a"}), clusters=("edge-*",), delegate=True)
    middle = made_by("a", Grant("middle", users=frozenset({"b"}), clusters=("edge-1*",), delegate=True))
    leaf = made_by("b", Grant("leaf", users=frozenset({"c"}), clusters=("edge-11",)))
    kept, why = in_force([top], [leaf, middle], NOW)
    assert [one.name for one in kept] == ["leaf", "middle"]
    assert why == {}
    for others in (
        [],
        [replace(top, clusters=("prod-*",))],
        [replace(top, delegate=False)],
        [replace(top, expires=NOW)],
    ):
        kept, why = in_force(others, [leaf, middle], NOW)
        assert kept == []
        assert why.keys() == {"leaf", "middle"}
        assert "'a' could not make it now" in why["middle"]
    kept, _ = in_force([top], [leaf, replace(middle, clusters=("edge-2*",))], NOW)
    assert [one.name for one in kept] == ["middle"]


def test_a_grant_that_covers_nothing_holds_nothing_up() -> None:
    """No file can say so; whoever makes grants in another way might."""
    empty = Grant("empty", users=frozenset({"olga"}), delegate=True)
    assert contained(Grant("b", clusters=("edge-1",)), empty) == "it covers no cluster"


def test_two_delegated_grants_do_not_hold_each_other_up() -> None:
    one = made_by("b", Grant("one", users=frozenset({"a"}), clusters=("edge-1",), delegate=True))
    two = made_by("a", Grant("two", users=frozenset({"b"}), clusters=("edge-1",), delegate=True))
    self_made = made_by("c", Grant("self", users=frozenset({"c"}), clusters=("edge-1",), delegate=True))
    assert in_force([], [one, two, self_made], NOW)[0] == []


def bounded_late() -> tuple[list[Grant], list[Grant]]:
    """Bob's is counted before the grant that makes a viewer of its maker b, which hangs on more."""

    def chain(name: str, maker: str, user: str, whom: AsWhom | None, priority: int = 0) -> Grant:
        users = frozenset({user})
        grant = Grant(name, users, clusters=("e",), impersonate=whom, delegate=True, priority=priority)
        return made_by(maker, grant)

    viewer = AsWhom("viewer")
    tops = [
        Grant("top-a", users=frozenset({"a"}), clusters=("e",), delegate=True),
        Grant("top-c", users=frozenset({"c"}), clusters=("e",), impersonate=viewer, delegate=True),
    ]
    return tops, [
        chain("first", "f", "b", viewer, -1),
        chain("outer", "a", "b", None),
        chain("bobs", "b", "bob", None),
        chain("x", "c", "e", viewer),
        chain("y", "e", "f", viewer),
    ]


def test_a_grant_that_bounds_its_maker_takes_back_what_was_counted_before_it() -> None:
    kept, why = in_force(*bounded_late(), NOW)
    assert [one.name for one in kept] == ["first", "outer", "x", "y"]
    assert "grant 'first' comes before it for you" in why["bobs"]


def test_owners_who_bound_each_other_for_too_long_lose_what_hangs_on_one_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("auth.grants.delegation._TRIES", 1)
    kept, why = in_force(*bounded_late(), NOW)
    assert [one.name for one in kept] == ["outer", "x"]
    assert why.keys() == {"first", "bobs", "y"}


def test_delegation_goes_only_so_deep() -> None:
    def step(number: int) -> Grant:
        grant = Grant(f"g{number:02}", frozenset({f"u{number + 1}"}), clusters=("e",), delegate=True)
        return made_by(f"u{number}", grant)

    top = Grant("top", frozenset({"u0"}), clusters=("e",), delegate=True)
    kept, why = in_force([top], [step(number) for number in range(DEPTH + 2)], NOW)
    assert len(kept) == DEPTH
    assert why.keys() == {f"g{DEPTH:02}", f"g{DEPTH + 1:02}"}


def test_owners_manage_their_clusters_alone() -> None:
    grants = Grants([OWNED])
    assert manages(OWNER, "edge-7", (("env", "dev"),), grants, ADMINS, NOW)
    assert not manages(OWNER, "edge-7", (("env", "prod"),), grants, ADMINS, NOW)
    assert not manages(OWNER, "prod-7", (("env", "dev"),), grants, ADMINS, NOW)
    assert not manages(BOB, "edge-7", (("env", "dev"),), grants, ADMINS, NOW)
    assert manages(ROOT, "prod-7", (), grants, ADMINS, NOW)


# --- for any grants and any request

users = st.sampled_from(["olga", "bob", "eve"])
clusters = st.lists(st.sampled_from(["*", "a", "a*", "b", "ab*"]), max_size=2, unique=True).map(tuple)
selectors = st.none() | st.builds(
    lambda op, values: LabelSelector((Requirement("k", op, values if op in ("In", "NotIn") else frozenset()),)),
    st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
    st.frozensets(st.sampled_from("xy"), min_size=1),
)
accesses = st.none() | st.builds(
    Access,
    st.booleans(),
    st.none() | st.frozensets(st.sampled_from(["get", "list", "create", "*", "post"]), min_size=1),
    st.none()
    | st.lists(st.sampled_from(["pods", "pods/exec", "pods/*", "*", "*.apps", "*/proxy", "nodes/proxy"]), min_size=1)
    .map(lambda found: resources(*found)),
    st.none() | st.lists(st.sampled_from(["n", "n*", "*"]), min_size=1).map(tuple),
    st.lists(st.sampled_from(["/metrics", "/m*", "*"]), max_size=1).map(tuple),
    st.none() | st.frozensets(st.sampled_from(sorted(KINDS))),
)  # fmt: skip
whoms = st.sampled_from([None, AsWhom("viewer"), AsWhom(user_prefix="p:"), AsWhom(groups=("system:masters",))])
some_names = st.sampled_from([False, True, Impersonable(("a*",)), Impersonable(("a",), ("g*",))])
grants_ = st.builds(
    Grant,
    st.just("g"),
    users=st.frozensets(users, min_size=1),
    clusters=clusters,
    selector=selectors,
    access=accesses,
    impersonate=whoms,
    allow_protected=st.sampled_from([frozenset(), frozenset({"system:masters"})]),
    allow_user_impersonation=some_names,
    delegate=st.booleans(),
    expires=st.sampled_from([NOW, NOW + 10, math.inf]),
)
FIELDS = (
    *("users", "clusters", "selector", "access", "impersonate", "allow_protected", "allow_user_impersonation"),
    *("delegate", "expires"),
)
requests = st.sampled_from(
    [
        ("GET", "/api/v1/namespaces/n/pods/p"),
        ("GET", "/api/v1/pods"),
        ("GET", "/api/v1/namespaces/n/pods/p/exec"),
        ("GET", "/api/v1/namespaces/na/pods/p/proxy/x"),
        ("POST", "/apis/apps/v1/namespaces/na/deployments"),
        ("GET", "/api/v1/nodes/x/proxy/run"),
        ("PATCH", "/api/v1/namespaces/n/pods/p/ephemeralcontainers"),
        ("GET", "/metrics"),
        ("POST", "/mx"),
    ]
)
labels = st.sampled_from([(), (("k", "x"),), (("k", "z"),)])


def person(name: str) -> Identity:
    return Identity(name, (), "", (), "oidc", name, math.inf)


BROAD = Grant("broad", users=frozenset({"olga"}), clusters=("*",), delegate=True)
changed = st.tuples(grants_, st.frozensets(st.sampled_from(FIELDS), max_size=2))


def like(grant: Grant, change: tuple[Grant, frozenset[str]]) -> Grant:
    """Nearly the same: what is drawn at random altogether is hardly ever contained in anything."""
    donor, fields = change
    return replace(grant, **{name: getattr(donor, name) for name in fields})


@settings(max_examples=400, deadline=None)
@given(
    st.lists(changed, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 5), changed), min_size=1, max_size=3),
    requests,
    st.sampled_from(["a", "ab", "b"]),
    labels,
    st.sampled_from([NOW, NOW + 5, NOW + 10]),
)
def test_what_was_delegated_allows_nothing_that_its_makers_grants_do_not_allow_him(
    written: list[tuple[Grant, frozenset[str]]],
    made: list[tuple[int, tuple[Grant, frozenset[str]]]],
    asked: tuple[str, str],
    cluster: str,
    some: tuple[tuple[str, str], ...],
    later: float,
) -> None:
    others = [replace(like(BROAD, change), name=f"o{number}") for number, change in enumerate(written)]
    delegated: list[Grant] = []
    for number, (base, change) in enumerate(made):
        outer = [*others, *delegated][base % (len(others) + len(delegated))]
        inner = replace(like(outer, change), name=f"d{number}")
        delegated.append(made_by(min(outer.users), inner))
    kept, why = in_force(others, delegated, NOW)
    assert {one.name for one in kept} | why.keys() == {one.name for one in delegated}
    assert not {one.name for one in kept} & why.keys()
    everything, request = Grants([*others, *kept]), request_info(asked[0], asked[1].encode())
    for grant in kept:
        assert grant.maker is not None
        decision = Grants([grant]).decide(person(min(grant.users)), cluster, later, request, some)
        if not decision.allowed:
            continue
        makers = everything.decide(grant.maker.identity, cluster, later, request, some)
        assert makers.allowed
        by = next(one for one in everything.grants if one.name == makers.rule)
        assert by.impersonate == grant.impersonate
        assert by.decision(person(min(grant.users))).headers == decision.headers
        assert decision.allow_protected <= makers.allow_protected
        assert decision.expires <= by.expires or by.maker is None
        for name in ("a", "ab", "z"):
            assert not may_ask(decision.allow_user_impersonation, name) or may_ask(
                makers.allow_user_impersonation, name
            )


def may_ask(allowed: bool | Impersonable, name: str) -> bool:
    return allowed.user(name) if isinstance(allowed, Impersonable) else allowed
