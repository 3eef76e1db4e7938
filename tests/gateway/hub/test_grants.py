"""The hub's Grant objects as grants: what counts, what hangs on its maker, and what cannot be read."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from auth.grants.sources import GrantSources, GrantsUnknown
from auth.identity import Identity
from gateway.hub.grants import GrantRead, HubGrants, read
from gateway.hub.informer import Delta, Informer
from gateway.hub.memory import Memory
from tests.gateway.hub.scripted_hub import until

NOW = 1_000.0
_VERSIONS = itertools.count(1)


def identity(user: str, *groups: str) -> Identity:
    return Identity(user, groups, "", (), "x509", f"X={user}", 9_999.0)


def document(name: str, subject: str, **spec: Any) -> dict[str, Any]:
    base = {"subjects": [{"kind": "User", "name": subject}], "clusters": ["edge-7"]}
    return {
        "apiVersion": "kulvert.dev/v1alpha1",
        "kind": "Grant",
        "metadata": {
            "name": name,
            "resourceVersion": str(next(_VERSIONS)),
            "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": base | spec,
    }


OWNER = document("owner", "olga", delegate=True)


class Told:
    """In an informer's place: tells of whole lists, as one does."""

    def __init__(self) -> None:
        self.memory = Memory(read, 1000)
        self.hear: Callable[[Sequence[Delta[GrantRead]]], None]

    def subscribe(self, hear: Callable[[Sequence[Delta[GrantRead]]], None]) -> None:
        self.hear = hear

    async def run(self) -> None:
        await asyncio.Event().wait()

    def list(self, *documents: dict[str, Any]) -> Sequence[Delta[GrantRead]]:
        staging = self.memory.stage()
        for one in documents:
            staging.add(one)
        deltas = staging.done()
        self.hear(deltas)
        return deltas


def hub_grants(made: GrantSources, clock: Callable[[], float] = lambda: 0.0) -> tuple[HubGrants, Told]:
    told = Told()
    return HubGrants(made, cast("Informer[GrantRead]", told), lambda: NOW, clock), told


def sources(*documents: dict[str, Any]) -> GrantSources:
    made = GrantSources("file", "hub")
    made.changed("file", (), NOW)
    hub, told = hub_grants(made)
    told.list(*documents)
    hub.merge()
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
    hub, told = hub_grants(made)
    wide = document("wide", "ada", clusters=["*"], priority=10)
    viewer = {"user": "viewer"}

    def seen() -> list[bytes]:
        headers = made.decide(identity("ada"), "edge-7", NOW).headers
        return [value for name, value in headers if name == b"impersonate-user"]

    told.list(document("narrow", "ada", impersonate=viewer), wide)
    hub.merge()
    assert seen() == [b"viewer"]
    told.list(document("narrow", "ada", impersonate=viewer | {"grups": []}), wide)
    hub.merge()
    assert "'narrow'" in (made.problem or "")
    assert seen() == [b"viewer"]
    told.list(wide)
    hub.merge()
    assert seen() == [b"ada"], "one that was deleted is gone"
    assert made.problem is None


def test_the_first_that_matches_is_by_priority_and_then_by_name() -> None:
    viewer = {"user": "viewer"}
    made = sources(
        document("b", "ada"),
        document("a", "ada", impersonate=viewer),
        document("c", "ada", priority=-1, clusters=["x"]),
    )
    assert [grant.name for grant in made.grants.grants] == ["c", "a", "b"]


def test_an_object_that_says_the_same_as_before_is_no_change() -> None:
    _, told = hub_grants(GrantSources("hub"))
    assert len(told.list(document("ada", "ada"))) == 1
    assert told.list(document("ada", "ada")) == []


class Counted(GrantSources):
    """How often it was merged."""

    merges = 0

    def changed(self, *args: Any, **more: Any) -> None:
        self.merges += 1
        super().changed(*args, **more)


async def test_what_changes_at_once_is_merged_once_and_soon() -> None:
    made = Counted("hub")
    hub, told = hub_grants(made)
    running = asyncio.create_task(hub.run())
    try:
        for count in range(20):
            told.list(*(document(f"ada-{number}", "ada") for number in range(count)))
        await until(lambda: made.merges == 1, 0.04)
        assert len(made.grants.grants) == 19
        for count in range(20):
            told.list(*(document(f"bob-{number}", "bob") for number in range(count)))
            await asyncio.sleep(0)
        await until(lambda: len(made.grants.grants) == 19 and reaches(made, "bob"), 0.2)
        assert made.merges == 2
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_merges_that_take_long_are_seldom() -> None:
    """Ten thousand grants take a tenth of a second, in which nobody is served."""
    times = iter([0.0, 0.02, 1.0, 1.0])
    made = Counted("hub")
    hub, told = hub_grants(made, lambda: next(times))
    running = asyncio.create_task(hub.run())
    try:
        told.list(document("ada", "ada"))
        await until(lambda: made.merges == 1)
        told.list(document("bob", "bob"))
        await asyncio.sleep(0.12)
        assert made.merges == 1
        await until(lambda: made.merges == 2)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_its_life_ends_both() -> None:
    hub, _ = hub_grants(GrantSources("hub"))
    before = asyncio.all_tasks()
    running = asyncio.create_task(hub.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks() - before) == 3
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == before
