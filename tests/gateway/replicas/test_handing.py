"""Sessions of clusters that are not this replica's any more: whose agents are sent on, and where to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from gateway.replicas.handing import Handing
from stub.ownership import Replica
from stub.session import Session
from stub.sessions import Sessions
from tests.support.owners import Owners

TWO = Replica("two", "10.0.0.2:8445", "https://two.example:8444")


@dataclass
class Mux:
    epoch: int = 3


@dataclass
class One:
    """A session, as far as it counts here."""

    ways: set[str] = field(default_factory=set)
    mux: Mux = field(default_factory=Mux)
    leaving: bool = False
    sent: list[str] = field(default_factory=list)

    def drain(self, address: str) -> None:
        self.leaving = True
        self.sent.append(address)


@dataclass
class Some:
    """Sessions of one cluster."""

    sessions: list[One]

    def clusters(self) -> list[str]:
        return ["a"]

    def of(self, cluster: str) -> list[One]:
        return self.sessions

    def all(self) -> list[One]:
        return self.sessions


def looked(owners: Owners, *sessions: One) -> None:
    Handing(owners, cast(Sessions, Some(list(sessions)))).look()


def test_those_of_another_holder_are_sent_to_it() -> None:
    owners, one = Owners("one", TWO), One()
    owners.hold("two", 4)
    looked(owners, one)
    assert one.sent == [TWO.agents_address]


@pytest.mark.parametrize("holder", ["one", ""])
def test_those_of_this_holding_and_of_nobodys_stay(holder: str) -> None:
    owners, one = Owners("one", TWO), One()
    owners.hold(holder, 3)
    looked(owners, one)
    assert not one.sent


def test_those_of_a_former_holding_of_its_own_come_again() -> None:
    owners, one = Owners("one", TWO), One()
    owners.hold("one", 5)
    looked(owners, one)
    assert one.sent == [""]


@pytest.mark.parametrize(("via", "sent"), [("two", []), ("gone", [""])])
def test_those_that_came_by_a_replica_which_leaves_come_by_another(via: str, sent: list[str]) -> None:
    owners, one = Owners("one", TWO), One(ways={via})
    owners.hold("one", 3)
    looked(owners, one)
    assert one.sent == sent


async def test_the_end_waits_for_all_to_be_told_and_not_for_ever() -> None:
    owners, stays = Owners("one"), One()
    handing = Handing(owners, cast(Sessions, Some([stays])))
    times = iter(range(100))
    await handing.emptied(3.0, lambda: float(next(times)))
    assert next(times) < 10
    assert cast(Session, stays) is not None


@pytest.mark.parametrize(("away", "sent"), [(None, []), ("", [""]), ("https://two:1", ["https://two:1"])])
def test_those_of_nobodys_are_sent_away_by_who_is_cut_off(away: str | None, sent: list[str]) -> None:
    owners, one = Owners("one", TWO), One()
    owners.hold("", 3)
    Handing(owners, cast(Sessions, Some([one])), lambda: away).look()
    assert one.sent == sent


@pytest.mark.parametrize(("holder", "sent"), [("one", []), ("two", [TWO.agents_address])])
def test_those_whose_holder_is_known_go_by_that_even_so(holder: str, sent: list[str]) -> None:
    owners, one = Owners("one", TWO), One()
    owners.hold(holder, 3)
    Handing(owners, cast(Sessions, Some([one])), lambda: "https://three:1").look()
    assert one.sent == sent
