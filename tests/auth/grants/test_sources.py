"""Several sources of grants, in one order, with what was delegated last."""

from __future__ import annotations

import math

import pytest

from auth.grants.grant import Grant, Maker
from auth.grants.sources import GrantSources, GrantsUnknown
from auth.identity import Identity

NOW = 1_000.0
ADA = Identity("ada", (), "", (), "oidc", "a", math.inf)
OLGA = Maker("olga", (), "oidc")


def grant(name: str, user: str = "ada", priority: int = 0, maker: Maker | None = None, delegate: bool = False) -> Grant:
    users = frozenset({user})
    return Grant(name, users, clusters=("*",), priority=priority, maker=maker, delegate=delegate)


def rule(sources: GrantSources) -> str:
    return sources.decide(ADA, "c", NOW).rule


def test_nothing_is_allowed_until_every_source_has_spoken() -> None:
    sources = GrantSources("file", "store")
    with pytest.raises(GrantsUnknown, match="not known yet"):
        sources.decide(ADA, "c", NOW)
    sources.changed("store", [grant("s")], NOW)
    with pytest.raises(GrantsUnknown):
        sources.decide(ADA, "c", NOW)
    assert sources.problem == "file: the grants are not known yet"
    sources.changed("file", [], NOW)
    assert rule(sources) == "s"
    assert sources.problem is None


def test_sources_count_in_their_order_and_delegated_grants_last() -> None:
    sources = GrantSources("file", "hub", "store")
    owner = grant("owner", "olga", delegate=True)
    sources.changed("file", [owner], NOW)
    sources.changed("hub", [], NOW)
    sources.changed("store", [grant("d2", priority=2, maker=OLGA), grant("d1", priority=-9, maker=OLGA)], NOW)
    assert rule(sources) == "d1"
    sources.changed("store", [grant("d1", priority=-9, maker=OLGA), grant("s", priority=9)], NOW)
    assert rule(sources) == "s"
    sources.changed("hub", [grant("h")], NOW)
    assert rule(sources) == "h"
    sources.changed("file", [owner, grant("f1"), grant("f2")], NOW)
    assert rule(sources) == "f1"
    assert [one.name for one in sources.grants.grants] == ["owner", "f1", "f2", "h", "s", "d1"]


def test_when_the_owners_grant_goes_so_does_what_hangs_on_it_whatever_source_it_was_in() -> None:
    sources = GrantSources("file", "store")
    sources.changed("file", [grant("owner", "olga", delegate=True)], NOW)
    sources.changed("store", [grant("d", maker=OLGA)], NOW)
    assert rule(sources) == "d"
    sources.changed("file", [], NOW)
    assert rule(sources) == ""
    assert [(one.source, one.grant.name, bool(one.problem)) for one in sources.listed] == [("store", "d", True)]
    assert sources.problem is None  # it is as it should be
    sources.changed("file", [grant("owner", "olga", delegate=True)], NOW)
    assert rule(sources) == "d"


def test_a_name_is_one_grants_and_an_administrators_first() -> None:
    sources = GrantSources("file", "store")
    sources.changed("file", [grant("owner", "olga", delegate=True)], NOW)
    sources.changed("store", [grant("x", maker=OLGA)], NOW)
    sources.changed("file", [grant("owner", "olga", delegate=True), grant("x", "eve")], NOW)
    assert rule(sources) == ""
    assert any("there is a grant of this name in file" in one.problem for one in sources.listed)
    sources.changed("store", [grant("x")], NOW)
    assert rule(sources) == ""
    assert "store: grant 'x' is not in force" in (sources.problem or "")


def test_an_owners_grant_takes_no_name_from_an_administrator_of_a_later_source() -> None:
    sources = GrantSources("hub", "store")
    sources.changed("hub", [grant("owner", "olga", delegate=True), grant("x", "eve", maker=OLGA)], NOW)
    sources.changed("store", [grant("x")], NOW)
    assert rule(sources) == "x"


def test_a_sources_problem_is_told_and_its_grants_stay() -> None:
    sources = GrantSources("file")
    sources.changed("file", [grant("f")], NOW, "1 cannot be read")
    assert sources.problem == "file: 1 cannot be read"
    sources.failed("file", "cannot be reached")
    assert (sources.problem, rule(sources)) == ("file: cannot be reached", "f")
    sources.failed("file", None)
    assert sources.problem is None


def test_a_source_that_nobody_named_is_a_mistake() -> None:
    with pytest.raises(LookupError):
        GrantSources("file").changed("hub", [], NOW)


def test_a_change_is_a_new_memory() -> None:
    sources = GrantSources("file")
    sources.changed("file", [grant("f")], NOW)
    assert rule(sources) == "f"
    sources.changed("file", [], NOW)
    assert rule(sources) == ""
