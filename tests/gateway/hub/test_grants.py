"""The hub's Grant objects as grants: what counts, what hangs on its maker, and what cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from auth.grants.sources import GrantSources, GrantsUnknown
from auth.identity import Identity
from gateway.hub.grants import HubGrants

NOW = 1_000.0


def identity(user: str, *groups: str) -> Identity:
    return Identity(user, groups, "", (), "x509", f"X={user}", 9_999.0)


def document(name: str, subject: str, **spec: Any) -> dict[str, Any]:
    base = {"subjects": [{"kind": "User", "name": subject}], "clusters": ["edge-7"]}
    return {
        "apiVersion": "kulvert.dev/v1alpha1",
        "kind": "Grant",
        "metadata": {"name": name, "resourceVersion": "7", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": base | spec,
    }


OWNER = document("owner", "olga", delegate=True)


def sources(*documents: dict[str, Any]) -> GrantSources:
    made = GrantSources("file", "hub")
    made.changed("file", (), NOW)
    HubGrants(made, lambda: NOW).changed({one["metadata"]["name"]: one for one in documents})
    return made


def reaches(made: GrantSources, user: str) -> bool:
    return made.decide(identity(user), "edge-7", NOW).allowed


def test_an_object_is_a_grant() -> None:
    made = sources(document("ada", "ada"))
    assert reaches(made, "ada")
    assert not reaches(made, "bob")
    assert made.problem is None


def test_nothing_is_allowed_before_the_hub_was_read() -> None:
    made = GrantSources("file", "hub")
    made.changed("file", (), NOW)
    with pytest.raises(GrantsUnknown):
        reaches(made, "ada")
    assert made.problem is not None


def test_what_an_owner_grants_holds_as_long_as_the_owner_does() -> None:
    by_olga = document("bob", "bob", grantedBy={"user": "olga"})
    assert reaches(sources(OWNER, by_olga), "bob")
    assert not reaches(sources(by_olga), "bob")


def test_who_is_no_owner_grants_nothing_even_past_the_admission_policy() -> None:
    assert not reaches(sources(document("bob", "bob", grantedBy={"user": "eve"})), "bob")
    beyond = document("bob", "bob", clusters=["edge-7", "edge-8"], grantedBy={"user": "olga"})
    assert not reaches(sources(OWNER, beyond), "bob")


@pytest.mark.parametrize("by", ["olga", {}, {"user": ""}, {"user": 7}, {"user": "olga", "groups": "admins"}, []])
def test_a_maker_that_cannot_be_read_makes_nothing(by: Any) -> None:
    made = sources(OWNER, document("bob", "bob", grantedBy=by))
    assert not reaches(made, "bob")
    assert "grantedBy" in (made.problem or "")


def test_one_that_cannot_be_read_is_named_and_the_others_count() -> None:
    made = sources(document("ada", "ada"), document("bad", "bob", acces={"readOnly": True}))
    assert reaches(made, "ada")
    assert not reaches(made, "bob")
    assert "'bad'" in (made.problem or "")


def test_one_that_cannot_be_read_any_more_counts_as_it_was_and_not_the_one_behind_it() -> None:
    """The first that matches decides as whom: without it ada would be herself there."""
    made = GrantSources("hub")
    hub = HubGrants(made, lambda: NOW)
    wide = document("wide", "ada", clusters=["*"], priority=10)
    viewer = {"user": "viewer"}

    def seen() -> list[bytes]:
        headers = made.decide(identity("ada"), "edge-7", NOW).headers
        return [value for name, value in headers if name == b"impersonate-user"]

    hub.changed({"narrow": document("narrow", "ada", impersonate=viewer), "wide": wide})
    assert seen() == [b"viewer"]
    hub.changed({"narrow": document("narrow", "ada", impersonate=viewer | {"grups": []}), "wide": wide})
    assert "'narrow'" in (made.problem or "")
    assert seen() == [b"viewer"]
    hub.changed({"wide": wide})
    assert seen() == [b"ada"], "one that was deleted is gone"
