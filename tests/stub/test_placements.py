"""Agents' connections are counted by what becomes of them, at the door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stub.ownership import Replica
from stub.placements import Placed, Placements
from stub.placing import WaitingRoom
from tests.agent.pki import Authority
from tests.stub.test_placing import OTHER, UNREACHED, greeted, next_message, own_link, replica
from tests.support.attached import eventually
from tests.support.owners import Owners
from tunnel.adapter import LinkConnection
from tunnel.handshake import Refused


class Adopter:
    """Takes every connection, and ends it."""

    def adopt(self, connection: LinkConnection, *_: object) -> None:
        connection.end("the test ends it")


async def test_one_that_waits_and_is_welcomed_is_counted_as_both(authority: Authority, tmp_path: Path) -> None:
    owners, placements = Owners(), Placements()
    async with replica(authority, tmp_path, owners, placements=placements) as stub, await greeted(stub) as link:
        assert (await next_message(link))["kind"] == "wait"
        assert placements.counts == {("shared", Placed.WAITING): 1}
        owners.hold("one", 5)
        await eventually(lambda: stub.sessions.all())
    assert placements.counts == {("shared", Placed.WAITING): 1, ("shared", Placed.HERE): 1}


@pytest.mark.parametrize(
    ("other", "placed"), [(OTHER, Placed.MOVED), (UNREACHED, Placed.PASSED_ON)], ids=["moved", "passed on"]
)
async def test_one_that_belongs_elsewhere_is_counted_by_how_it_gets_there(
    authority: Authority, tmp_path: Path, other: Replica, placed: Placed
) -> None:
    owners, placements = Owners("one", other), Placements()
    owners.hold("two")
    more: dict[str, Any] = {"placements": placements, "adopter": Adopter(), "elsewhere": lambda _session: other}
    async with replica(authority, tmp_path, owners, **more) as stub:
        async with await greeted(stub) as link:
            await link.ended()
        await own_link(stub)
    assert placements.counts == {("shared", placed): 1, ("own", placed): 1}


async def test_one_that_is_refused_is_not_counted(authority: Authority, tmp_path: Path) -> None:
    owners, placements = Owners(), Placements()
    room = WaitingRoom(owners, most=0)
    async with (
        replica(authority, tmp_path, owners, placements=placements, room=room) as stub,
        await greeted(stub) as link,
    ):
        with pytest.raises(Refused):
            await link.welcome()
    assert not placements.counts
