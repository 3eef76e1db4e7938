"""Agents at the door of a replica that does not have their cluster: sent on, or waiting, until somebody has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from stub.ownership import Place, Replica
from stub.placing import Elsewhere, WaitingRoom, whither
from tests.agent.pki import Authority
from tests.support.attached import QUICK, RawLink, Stub, eventually, nothing_left, own_hello, shared_hello
from tests.support.owners import Owners
from tunnel.adapter import LinkConnection
from tunnel.frames import CONTROL, encode
from tunnel.handshake import Refused, Wait, Welcome
from tunnel.messages import parse_message

OTHER = Replica("two", "10.0.0.2:8445", "https://two.example:8444")
UNREACHED = Replica("two", "10.0.0.2:8445")


@asynccontextmanager
async def replica(authority: Authority, tmp_path: Path, owners: Owners, **more: Any) -> AsyncIterator[Stub]:
    room = WaitingRoom(owners, every=0.1)
    room.open()
    setting = {"epoch": 0, "ownership": owners, "room": room, "timing": replace(QUICK, silence=8.0)} | more
    async with nothing_left(), Stub(authority, tmp_path / "stub", **setting) as stub:
        try:
            yield stub
        finally:
            room.close()


async def greeted(stub: Stub) -> RawLink:
    link = await stub.dial()
    link.say(encode(CONTROL, payload=shared_hello(link, await link.challenge()).encode()))
    return link


async def next_message(link: RawLink) -> dict[str, Any]:
    frame = await link.frame()
    return parse_message(frame.payload, 8192)


def test_whither_is_here_elsewhere_or_nowhere() -> None:
    assert whither(Place("one", True, 3), ()) == Place("one", True, 3)
    assert whither(Place("two", False), (OTHER,)) == Elsewhere(OTHER)
    assert whither(Place("two", False), ()) is None  # it is not alive
    assert whither(Place("", False), (Replica("", ""),)) is None


async def test_the_holders_welcome_says_its_epoch_and_how_long_it_is_never_silent(
    authority: Authority, tmp_path: Path
) -> None:
    owners = Owners()
    owners.hold("one", 41)
    async with replica(authority, tmp_path, owners) as stub, await greeted(stub) as link:
        welcome = await link.welcome()
        assert (welcome.epoch, welcome.silence) == (41, 8.0)
        (session,) = stub.sessions.of("alpha")
        assert session.mux.epoch == 41


async def test_who_comes_while_nobody_holds_waits_and_is_welcomed_by_who_does(
    authority: Authority, tmp_path: Path
) -> None:
    owners = Owners()
    async with replica(authority, tmp_path, owners) as stub, await greeted(stub) as link:
        assert Wait.parse(await next_message(link)).seconds >= 0
        assert Wait.parse(await next_message(link)).seconds >= 0
        assert not stub.sessions.all()
        owners.hold("one", 5)
        message = await next_message(link)
        while message["kind"] == "wait":
            message = await next_message(link)
        assert Welcome.parse(message, own=False).epoch == 5
        assert len(stub.sessions.of("alpha")) == 1


async def test_who_waits_hears_where_to_go(authority: Authority, tmp_path: Path) -> None:
    owners = Owners("one", OTHER)
    async with replica(authority, tmp_path, owners) as stub, await greeted(stub) as link:
        assert (await next_message(link))["kind"] == "wait"
        owners.hold("two")
        message = await next_message(link)
        while message["kind"] == "wait":
            message = await next_message(link)
        assert (message["reason"], message["address"]) == ("moved", OTHER.agents_address)
        await link.ended()


async def test_a_thousand_who_wait_are_all_placed() -> None:
    owners, placed = Owners(), list[int]()
    room = WaitingRoom(owners, every=60.0)
    room.open()
    connections = [_Silent() for _ in range(1000)]
    for number, connection in enumerate(connections):
        room.enter(cast(LinkConnection, connection), partial(_placed, placed, number))
    owners.hold("one")
    assert len(placed) < 1000  # not all in one turn of the loop
    await eventually(lambda: len(placed) == 1000)
    assert placed == list(range(1000))
    assert not len(room)
    room.close()


def _placed(placed: list[int], number: int) -> bool:
    placed.append(number)
    return True


class _Silent:
    ended = ""

    def send(self, frame: bytes) -> None: ...

    def end(self, reason: str) -> None:
        self.ended = reason


async def test_the_room_is_bounded(authority: Authority, tmp_path: Path) -> None:
    owners = Owners()
    room = WaitingRoom(owners, most=1, every=0.1)
    room.open()
    async with replica(authority, tmp_path, owners, room=room) as stub, await greeted(stub) as first:
        assert (await next_message(first))["kind"] == "wait"
        async with await greeted(stub) as second:
            with pytest.raises(Refused) as caught:
                await second.welcome()
            assert caught.value.reason == "overloaded"
        room.close()


async def test_who_waits_and_goes_is_forgotten(authority: Authority, tmp_path: Path) -> None:
    owners = Owners()
    room = WaitingRoom(owners, every=0.1)
    room.open()
    async with replica(authority, tmp_path, owners, room=room) as stub:
        async with await greeted(stub) as link:
            await next_message(link)
            assert len(room) == 1
        await eventually(lambda: not len(room))
        owners.hold("one")
        await asyncio.sleep(0.05)
        assert not stub.sessions.all()
        room.close()


async def test_without_a_way_to_the_holder_an_agent_is_told_to_try_others(authority: Authority, tmp_path: Path) -> None:
    owners = Owners("one", UNREACHED)
    owners.hold("two")
    async with replica(authority, tmp_path, owners) as stub, await greeted(stub) as link:
        with pytest.raises(Refused) as caught:
            await link.welcome()
        assert caught.value.reason == "standby"


async def test_an_own_link_of_another_replicas_session_is_sent_there(authority: Authority, tmp_path: Path) -> None:
    owners = Owners("one", OTHER)
    owners.hold("one")
    async with (
        replica(authority, tmp_path, owners, elsewhere=lambda _session: OTHER) as stub,
        await stub.dial() as link,
    ):
        hello = own_hello(await link.challenge(), link.name, "f" * 32, b"secret")
        link.say(encode(CONTROL, payload=hello.encode()))
        with pytest.raises(Refused) as caught:
            await link.welcome(own=True)
        assert (caught.value.reason, caught.value.address) == ("moved", OTHER.agents_address)


async def test_a_proof_that_is_wrong_does_not_wait(authority: Authority, tmp_path: Path) -> None:
    async with replica(authority, tmp_path, Owners()) as stub, await stub.dial() as link:
        hello = shared_hello(link, await link.challenge())
        text = hello.encode().replace(b'"uid-of-alpha"', b'"uid-of-other"')
        link.say(encode(CONTROL, payload=text))
        with pytest.raises(Refused) as caught:
            await link.welcome()
        assert caught.value.reason in ("proof", "identity")


# --- what goes wrong with one, or with the whole replica


@pytest.mark.parametrize("bad", [0, 50, 119])
async def test_what_fails_with_one_who_waits_ends_that_one_alone(bad: int) -> None:
    owners, placed = Owners(), list[int]()
    room = WaitingRoom(owners, every=60.0)
    room.open()
    connections = [_Silent() for _ in range(120)]

    def again(number: int) -> bool:
        if number == bad:
            raise KeyError("a bug")
        return _placed(placed, number)

    for number, connection in enumerate(connections):
        room.enter(cast(LinkConnection, connection), partial(again, number))
    with capture_logs() as logs:
        owners.hold("one")
        await eventually(lambda: len(placed) == 119)
        await asyncio.sleep(0)
    assert [line["event"] for line in logs] == ["internal error while an agent waited"]
    assert [number for number, one in enumerate(connections) if one.ended] == [bad]
    assert not len(room)
    late = _Silent()
    room.enter(cast(LinkConnection, late), partial(_placed, placed, 999))
    owners.hold("one")
    assert placed[-1] == 999, "the room goes on"
    room.close()


@pytest.mark.parametrize(("address", "reason"), [("", "standby"), ("https://two.example:8444", "moved")])
async def test_who_waits_at_a_replica_that_is_cut_off_is_sent_away(
    authority: Authority, tmp_path: Path, address: str, reason: str
) -> None:
    owners, away = Owners(), list[str]()
    room = WaitingRoom(owners, every=0.1, away=lambda: away[0] if away else None)
    room.open()
    async with replica(authority, tmp_path, owners, room=room) as stub:
        async with await greeted(stub) as first, await greeted(stub) as second:
            for link in (first, second):
                assert (await next_message(link))["kind"] == "wait"
            away.append(address)
            for link in (first, second):
                message = await next_message(link)
                while message["kind"] == "wait":
                    message = await next_message(link)
                assert (message["reason"], message.get("address", "")) == (reason, address)
                await link.ended()
        async with await greeted(stub) as late:
            with pytest.raises(Refused) as caught:
                await late.welcome()
            assert (caught.value.reason, caught.value.address) == (reason, address)
        assert not len(room)
        room.close()


# --- own links, whose hello proves nothing here


class _Adopter:
    def __init__(self) -> None:
        self.adopted = 0

    def adopt(self, connection: LinkConnection, *_: object) -> None:
        self.adopted += 1
        connection.end("the test ends it")


async def own_link(stub: Stub) -> str:
    """The refusal of one that belongs elsewhere; empty: it was passed on."""
    async with await stub.dial() as link:
        link.say(encode(CONTROL, payload=own_hello(await link.challenge(), link.name, "f" * 32, b"secret").encode()))
        try:
            message = await next_message(link)
        except (ConnectionError, EOFError, asyncio.IncompleteReadError):
            return ""
        return str(message["reason"])


@pytest.mark.parametrize(
    ("setting", "reason"),
    [({"max_links_in_all": 0}, "overloaded"), ({"reached": lambda _identity: False}, "standby")],
    ids=["full", "not reached"],
)
async def test_an_own_link_is_passed_on_by_who_can(
    authority: Authority, tmp_path: Path, setting: dict[str, Any], reason: str
) -> None:
    adopter = _Adopter()
    setting = {"elsewhere": lambda _session: UNREACHED, "adopter": adopter} | setting
    async with replica(authority, tmp_path, Owners("one", UNREACHED), **setting) as stub:
        assert await own_link(stub) == reason
    assert not adopter.adopted
