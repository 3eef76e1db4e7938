"""Agents that come to a replica which does not hold their cluster: their connections are passed on, unread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stub.attaching import Attaching
from stub.ownership import Alone, Place, Replica
from stub.peers import sessionid
from stub.peers.adopt import Adopting
from stub.peers.pipe import HIGH
from stub.session import Session
from tests.agent.pki import Authority
from tests.stub.peers.api import Api
from tests.stub.peers.replicas import LIMITS, Server, User, send, until
from tests.support.agentauthority import Book
from tests.support.attached import Real, Stub, nothing_left, own_hello, shared_hello
from tunnel import proof
from tunnel.errors import ExchangeReset
from tunnel.handshake import Refused
from tunnel.limits import KIB, MIB
from tunnel.ports import RequestBlock

EXEC = RequestBlock(b"POST", b"/exec", [(b"upgrade", b"spdy/3.1")], ended=False, long=True, upgrade=True)
SMALL = RequestBlock(b"GET", b"/small", [])


class Held(Alone):
    """All clusters are held by one replica, as `at` says."""

    def __init__(self, identity: str, holder: str, others: Callable[[], tuple[Replica, ...]]) -> None:
        super().__init__(identity, 7)
        self.identity = identity
        self.holder = holder
        self._others = others

    def place(self, cluster: str) -> Place:
        return Place(self.holder, self.holder == self.identity, 7)

    def replicas(self) -> tuple[Replica, ...]:
        return self._others()


@dataclass
class Pair:
    """`a` holds the cluster; agents come to the door of b."""

    a: Stub
    b: Stub
    server_a: Server
    server_b: Server
    adopting: Adopting
    held_a: Held
    records: list[Replica]
    """Who is alive, as both know it."""

    @property
    def session(self) -> Session:
        """The one session there is."""
        (found,) = self.a.sessions.all()
        return found

    def ask(self, head: RequestBlock, **user: Any) -> User:
        """A user at a."""
        asked = User(**user)
        asked.exchange = self.a.sessions.open("alpha", replace(head), asked)
        return asked


@asynccontextmanager
async def pair(authority: Authority, directory: Path, ca: bytes, **limits: Any) -> AsyncIterator[Pair]:
    """Two replicas, with b's agents' door."""
    book, most = Book(), replace(LIMITS, **limits)
    async with AsyncExitStack() as stack:
        records: list[Replica] = []
        held_a = Held("a", "a", lambda: tuple(records))
        a = Stub(
            authority, directory / "a", book=book, ownership=held_a,
            session_id=lambda randomness: sessionid.make("a", randomness),
        )  # fmt: skip
        server_a = Server(
            "a", ca, limits=most, closed=lambda one: a.setting.links.discard(one),
            acceptance=lambda challenge, via: Attaching(a.setting, challenge, via),
        )  # fmt: skip
        server_b = Server("b", ca, limits=most)
        adopting = Adopting(server_b.dialler)

        def elsewhere(session: str) -> Replica | None:
            found = sessionid.is_of(session, [one.identity for one in records])
            return next((one for one in records if one.identity == found), None)

        held_b = Held("b", "a", lambda: tuple(records))
        b = Stub(
            authority, directory / "b", book=book, ownership=held_b, adopter=adopting, elsewhere=elsewhere,
        )  # fmt: skip
        await stack.enter_async_context(a)
        await stack.enter_async_context(await server_a.listen())
        await stack.enter_async_context(server_b)
        records += [server_a.record, Replica("b", "")]
        running = asyncio.create_task(adopting.run())
        await asyncio.sleep(0)
        await stack.enter_async_context(b)
        try:
            yield Pair(a, b, server_a, server_b, adopting, held_a, records)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def two(authority: Authority, tmp_path: Path, replicas_ca: bytes) -> AsyncIterator[Pair]:
    async with nothing_left(), pair(authority, tmp_path, replicas_ca) as found:
        yield found


@asynccontextmanager
async def agent(two: Pair, **setting: Any) -> AsyncIterator[Api]:
    """A real one that knows b alone, and is attached."""
    api = Api()
    async with Real(two.b, api, **setting):
        await until(lambda: two.a.sessions.all())
        yield api


async def test_an_agent_is_attached_where_it_belongs_and_serves_there(two: Pair) -> None:
    async with agent(two) as api:
        user = two.ask(SMALL)
        await until(lambda: user.over)
        assert user.body == b"hello"
        assert len(api.seen) == 1
        assert not two.b.sessions.all()
        assert two.session.info.address.startswith("127.0.0.1:")
        assert sessionid.is_of(two.session.id, ["a", "b"]) == "a"
    await until(lambda: not two.a.sessions.all())
    assert not two.adopting.adopted


async def test_own_links_go_the_same_way(two: Pair) -> None:
    async with agent(two):
        user, sent = two.ask(EXEC), os.urandom(3 * MIB)
        await until(lambda: user.heads)
        await until(lambda: any(link.exchange is not None for link in two.session.mux.own_links.values()))
        assert user.exchange is not None
        await send(user.exchange, user, sent)
        user.exchange.send_end()
        await until(lambda: user.over)
        assert user.body == sent


async def test_a_holder_that_does_not_read_stops_what_is_passed_on(two: Pair) -> None:
    """Here the socket is what stalls; a reader of one exchange is the link's credit's business."""
    async with agent(two) as api:
        user = two.ask(replace(SMALL, target=b"/big/60000000", long=True))
        await until(lambda: any(link.exchange is not None for link in two.session.mux.own_links.values()))
        transports: list[Any] = [one.transport for one in two.a.setting.links if one.transport is not None]
        for transport in transports:
            transport.pause_reading()
        await asyncio.sleep(0.5)
        assert max(pipe.far.held for pipe in two.adopting._pipes if pipe.far) <= HIGH + 256 * KIB
        assert api.seen[0].sent < 30 * MIB  # sockets' buffers on loopback, mostly
        for transport in transports:
            transport.resume_reading()
        await until(lambda: user.over, 20.0)
        assert len(user.body) == 60_000_000


@pytest.mark.parametrize("who", ["agent", "holder"])
async def test_an_end_is_mirrored_behind_all_that_was_said(two: Pair, who: str) -> None:
    async with agent(two) as api:
        user = two.ask(replace(SMALL, target=b"/big/3000000"))
        await until(lambda: user.over)
        waiting = two.ask(replace(SMALL, target=b"/never"))
        await until(lambda: len(api.seen) == 2)
        if who == "holder":
            two.session.mux.close("the test ends it")
            await until(lambda: api.seen[1].reset)
            await until(lambda: two.a.sessions.all())  # it comes again
        else:
            for pipe in tuple(two.adopting._pipes):
                pipe._connection.abort("cut")
            await until(lambda: waiting.over)
        assert len(user.body) == 3_000_000


async def test_an_agent_whose_holder_is_not_reached_is_told_and_comes_again(two: Pair) -> None:
    async with await two.b.dial() as link:
        assert two.server_a.door._server is not None
        two.server_a.door._server.close()
        await asyncio.sleep(0.02)
        link.tell(shared_hello(link, await link.challenge()))
        with pytest.raises(Refused, match="is not reached"):
            await link.welcome()
        await link.ended()
        assert not two.adopting.adopted


async def test_what_was_passed_on_is_passed_on_no_further(two: Pair) -> None:
    """Each of the two takes the other for the holder."""
    two.held_a.holder = "b"
    async with await two.b.dial() as link:
        link.tell(shared_hello(link, await link.challenge()))
        with pytest.raises(Refused):
            await link.welcome()
        await link.ended()


async def test_a_proof_is_checked_where_the_session_is(two: Pair) -> None:
    async with await two.b.dial() as link:
        challenge = await link.challenge()
        link.tell(replace(shared_hello(link, challenge), proof="x" * 86))
        with pytest.raises(Refused, match="proof"):
            await link.welcome()
    async with await two.b.dial() as link:
        link.tell(shared_hello(link, await link.challenge()))
        welcome = await link.welcome()
        secret = proof.decode(welcome.secret)
        for wrong in (b"0" * 32, secret, secret):
            async with await two.b.dial() as own:
                own.tell(own_hello(await own.challenge(), own.name, welcome.session, wrong, link_id=5))
                if wrong == secret and not two.session._seen_links:
                    await own.welcome(own=True)
                else:
                    with pytest.raises(Refused, match="used before" if wrong == secret else "proof"):
                        await own.welcome(own=True)


async def test_a_session_knows_by_way_of_which_replicas_its_links_come(two: Pair) -> None:
    async with await two.b.dial() as link:
        link.tell(shared_hello(link, await link.challenge()))
        welcome = await link.welcome()
        assert two.session.ways == {"b"}
        two.session.via = ""  # as if it had come to the holder's own door
        assert two.session.ways == set()
        async with await two.b.dial() as own:
            secret = proof.decode(welcome.secret)
            own.tell(own_hello(await own.challenge(), own.name, welcome.session, secret, link_id=5))
            await own.welcome(own=True)
            assert two.session.ways == {"b"}
        await until(lambda: not two.session.ways)


async def test_nobody_comes_by_a_replica_that_leaves_since_nobody_would_send_him_on(two: Pair) -> None:
    async with await two.b.dial() as link:
        link.tell(shared_hello(link, await link.challenge()))
        welcome = await link.welcome()
        del two.records[1]
        async with await two.b.dial() as own:
            secret = proof.decode(welcome.secret)
            own.tell(own_hello(await own.challenge(), own.name, welcome.session, secret, link_id=5))
            with pytest.raises(Refused, match="'b', which passes this on, is leaving"):
                await own.welcome(own=True)
        async with await two.b.dial() as another:
            another.tell(shared_hello(another, await another.challenge()))
            with pytest.raises(Refused, match="'b', which passes this on, is leaving") as caught:
                await another.welcome()
            assert caught.value.reason == "draining"
        assert two.session.ways == {"b"}


async def test_what_is_said_before_the_welcome_ends_it(two: Pair) -> None:
    async with await two.b.dial() as link:
        link.tell(shared_hello(link, await link.challenge()))
        link.say(b"x" * 100)
        await link.ended()
    await until(lambda: not two.adopting.adopted)


async def test_only_so_many_are_passed_on(authority: Authority, tmp_path: Path, replicas_ca: bytes) -> None:
    async with pair(authority, tmp_path, replicas_ca, adopted=1) as two, await two.b.dial() as first:
        first.tell(shared_hello(first, await first.challenge()))
        await first.welcome()
        async with await two.b.dial() as second:
            second.tell(shared_hello(second, await second.challenge()))
            with pytest.raises(Refused, match="no more agents"):
                await second.welcome()


async def test_an_idle_pair_has_no_task(two: Pair) -> None:
    before = len(asyncio.all_tasks())
    async with await two.b.dial() as link:
        link.tell(shared_hello(link, await link.challenge()))
        await link.welcome()
        await asyncio.sleep(0.05)
        assert two.adopting.adopted == 1
        assert len(asyncio.all_tasks()) == before


async def test_a_replica_that_stops_lets_its_agents_go(
    authority: Authority, tmp_path: Path, replicas_ca: bytes
) -> None:
    async with AsyncExitStack() as stack:
        two = await stack.enter_async_context(pair(authority, tmp_path, replicas_ca))
        api = Api()
        real = await stack.enter_async_context(Real(two.b, api))
        await until(lambda: two.a.sessions.all())
        waiting = two.ask(replace(SMALL, target=b"/never"))
        await until(lambda: api.seen)
        two.adopting.close("this replica is stopping")
        await until(lambda: waiting.over)
        assert isinstance(waiting.reset, ExchangeReset)
        assert real.task is not None
