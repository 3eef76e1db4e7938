"""Links between replicas that come and go: killed, silent, drained, gone, and what is dialled when."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from stub.ownership import Replica
from stub.peers.errors import NotOpened, PeerGone, PeerUnready
from stub.peers.links import AskingLinks
from stub.peers.peers import Peers
from tests.stub.peers.api import Api
from tests.stub.peers.conftest import Site
from tests.stub.peers.replicas import LIMITS, Server, ask, send, two, until
from tests.support.attached import Stub, attached, nothing_left
from tests.support.cuttable import Cuttable
from tunnel.errors import Hop, Reason
from tunnel.limits import MIB
from tunnel.ports import RequestBlock

AUDIT = (b"audit-id", b"0123-4567")


def get(path: bytes, *headers: tuple[bytes, bytes], long: bool = False) -> RequestBlock:
    """A request without a body."""
    return RequestBlock(b"GET", path, [AUDIT, *headers], long=long)


EXEC = RequestBlock(b"POST", b"/exec", [AUDIT, (b"upgrade", b"spdy/3.1")], ended=False, long=True, upgrade=True)
POST = RequestBlock(b"POST", b"/echo", [AUDIT], ended=False)


async def test_without_a_link_nothing_is_opened(site: Site) -> None:
    with pytest.raises(PeerGone):
        ask(site.r, get(b"/small"), holder="x")
    site.r.peers.tell([site.r.record, site.o.record, Replica("x", "127.0.0.1:1")])
    with pytest.raises(PeerUnready):
        ask(site.r, get(b"/small"), holder="x")


async def test_nobody_dials_itself(site: Site) -> None:
    site.o.peers.tell([site.o.record])
    await asyncio.sleep(0.1)
    assert not site.o.peers._kept
    assert {session.replica for session in site.o.door.sessions.values()} == {"r"}


async def test_a_holder_that_is_killed_in_the_middle_of_an_answer_is_a_lost_one(stub: Stub, replicas_ca: bytes) -> None:
    async with AsyncExitStack() as stack:
        o = await stack.enter_async_context(await Server("o", replicas_ca, stub.sessions.open).listen())
        between = await stack.enter_async_context(Cuttable(int(o.address.rpartition(":")[2])))
        r = await stack.enter_async_context(Server("r", replicas_ca))
        api = Api()
        await stack.enter_async_context(attached(stub, api))
        r.peers.tell([Replica("o", f"127.0.0.1:{between.port}")])
        await until(lambda: r.peers.ready("o"))
        users = [ask(r, get(b"/big/100000000", long=True), reading=False), ask(r, get(b"/never"))]
        await until(lambda: users[0].heads and len(api.seen) == 2)
        between.cut()
        await until(lambda: all(user.over for user in users))
        for user in users:
            assert user.reset is not None
            assert (user.reset.hop, user.reset.reason) == (Hop.STUB, Reason.LINK_LOST)
        await until(lambda: all(asked.reset for asked in api.seen))  # the agents stop, too
        await until(lambda: r.peers.ready("o"))  # and it is dialled again
        again = ask(r, get(b"/small"))
        await until(lambda: again.over)
        assert again.body == b"hello"


async def test_a_holder_that_says_nothing_any_more_is_given_up(stub: Stub, replicas_ca: bytes) -> None:
    async with AsyncExitStack() as stack:
        o = await stack.enter_async_context(await Server("o", replicas_ca, stub.sessions.open).listen())
        between = await stack.enter_async_context(Cuttable(int(o.address.rpartition(":")[2])))
        r = await stack.enter_async_context(Server("r", replicas_ca))
        r.peers.tell([Replica("o", f"127.0.0.1:{between.port}")])
        await until(lambda: r.peers.ready("o"))
        between.freeze()
        user = ask(r, get(b"/never"))
        await until(lambda: user.over, 1.0)
        assert user.reset is not None
        assert (user.reset.hop, user.reset.reason) == (Hop.STUB, Reason.LINK_LOST)
        assert "did not acknowledge" in user.reset.message
        with pytest.raises(PeerUnready):
            ask(r, get(b"/small"))
        await until(lambda: not r.peers._sessions)  # dead, and dialled again
        between.thaw()
        await until(lambda: r.peers.ready("o"))


async def test_a_holder_that_drains_finishes_what_it_has_and_takes_no_more(site: Site) -> None:
    user = ask(site.r, EXEC)
    await until(lambda: user.heads)
    site.o.door.drain()
    late = ask(site.r, get(b"/small"))  # on its way when the drain is told
    await until(lambda: late.over)
    assert isinstance(late.reset, NotOpened)
    assert late.reset.reason is Reason.DRAINING
    with pytest.raises(PeerUnready):
        ask(site.r, get(b"/small"))
    assert user.exchange is not None
    user.exchange.send_data(b"still here")
    user.exchange.send_end()
    await until(lambda: user.over)
    assert user.body == b"still here"
    assert len(site.api.seen) == 1


async def test_a_replica_that_is_gone_gets_nothing_new_and_its_rest_ends_by_itself(site: Site) -> None:
    user = ask(site.r, EXEC)
    await until(lambda: user.heads)
    site.r.peers.tell([site.r.record])
    with pytest.raises(PeerGone):
        ask(site.r, get(b"/small"))
    assert user.exchange is not None
    user.exchange.send_data(b"still here")
    user.exchange.send_end()
    await until(lambda: user.over)
    assert user.body == b"still here"
    await until(lambda: not site.o.door.sessions)
    site.r.peers.tell([site.r.record, site.o.record])
    await until(lambda: site.r.peers.ready("o"))


async def test_a_replica_that_has_come_again_elsewhere_is_asked_there(site: Site, replicas_ca: bytes) -> None:
    user = ask(site.r, EXEC)
    await until(lambda: user.heads)
    async with await Server("o", replicas_ca, site.stub.sessions.open).listen() as again:
        site.r.peers.tell([site.r.record, again.record])
        with pytest.raises(PeerUnready):
            ask(site.r, get(b"/small"))
        await until(lambda: site.r.peers.ready("o"))
        assert again.door.sessions
        quick = ask(site.r, get(b"/small"))
        await until(lambda: quick.over)
        assert quick.body == b"hello"
        assert not user.over  # and what the old link serves goes on


async def test_own_links_are_dialled_as_needed_bounded_and_let_go(site: Site) -> None:
    session = site.r.peers._sessions["o"]
    await until(lambda: len(session.mux.own_links) == LIMITS.warm)
    users = [ask(site.r, EXEC) for _ in range(20)]
    await until(lambda: sum(link.exchange is not None for link in session.mux.own_links.values()) == 20)
    for user in users:
        assert user.exchange is not None
        user.exchange.send_end()
    await until(lambda: all(user.over for user in users))
    await until(lambda: len(session.mux.own_links) == LIMITS.warm)


async def test_an_idle_link_that_is_taken_is_replaced(site: Site) -> None:
    links = site.r.peers._sessions["o"].mux.own_links
    user = ask(site.r, EXEC)
    await until(lambda: sum(link.exchange is not None for link in links.values()) == 1)
    await until(lambda: sum(link.exchange is None for link in links.values()) == LIMITS.warm)
    assert not user.over


async def test_a_holder_says_how_many_links_it_waits_for(stub: Stub, replicas_ca: bytes) -> None:
    """It alone knows of an answer that is larger than its first credit."""
    bare = replace(LIMITS, warm=0)
    async with attached(stub, Api()), two(stub.sessions.open, replicas_ca, limits=bare) as (r, _):
        users = [ask(r, get(b"/big/1000000"), reading=False) for _ in range(3)]
        links = r.peers._sessions["o"].mux.own_links
        await until(lambda: sum(link.exchange is not None for link in links.values()) == 3)
        for user in users:
            user.reading = True
            user.read()
        await until(lambda: all(len(user.body) == 1_000_000 for user in users))
        await until(lambda: not links)


async def test_no_more_own_links_than_the_holder_allows(stub: Stub, replicas_ca: bytes) -> None:
    few = replace(LIMITS, links=3)
    async with attached(stub, Api()), two(stub.sessions.open, replicas_ca, limits=few) as (r, _):
        with capture_logs() as logs:
            users = [ask(r, EXEC) for _ in range(8)]
            await until(lambda: all(user.heads for user in users))
            await asyncio.sleep(0.1)
        assert len(r.peers._sessions["o"].mux.own_links) == 3
        assert not logs  # it does not even ask for more
        for user in users:  # the others do without
            assert user.exchange is not None
            user.exchange.send_data(b"x" * 100_000)
        await until(lambda: all(len(user.body) == 100_000 for user in users))


async def test_what_two_replicas_had_between_them_is_gone_when_they_are(stub: Stub, replicas_ca: bytes) -> None:
    async with nothing_left():
        async with two(stub.sessions.open, replicas_ca) as (r, o):
            await until(lambda: r.peers._sessions["o"].mux.own_links)
        assert not o.door.sessions


async def test_workers_speak_over_unix_sockets(stub: Stub) -> None:
    with tempfile.TemporaryDirectory() as directory:  # private by itself, and its path is short
        address = f"unix:{directory}/worker-0"
        async with (
            attached(stub, Api()),
            await Server("o", None, stub.sessions.open).listen(address) as o,
            Server("r", None) as r,
        ):
            await r.attached(o)
            user, sent = ask(r, EXEC), os.urandom(3 * MIB)
            await until(lambda: user.heads)
            assert user.exchange is not None
            await send(user.exchange, user, sent)
            user.exchange.send_end()
            await until(lambda: user.over)
            assert user.body == sent


@pytest.mark.parametrize("after", [0.0, 0.005, 0.1])
async def test_a_dial_that_is_given_up_leaves_nothing(replicas_ca: bytes, after: float) -> None:
    """At a server that never answers hello."""
    async with nothing_left():
        o, r = Server("o", replicas_ca), Server("r", replicas_ca)
        assert o.tls is not None
        silent = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0, ssl=o.tls.server)
        o.address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        r.peers.tell([o.record])
        running = asyncio.create_task(r.peers.run())
        await asyncio.sleep(after)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        silent.close()


async def test_a_replica_that_never_answers_is_given_up_in_time(replicas_ca: bytes) -> None:
    short = replace(LIMITS, dial=0.2)
    async with nothing_left():
        o, r = Server("o", replicas_ca), Server("r", replicas_ca, limits=short)
        assert o.tls is not None
        silent = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0, ssl=o.tls.server)
        o.address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        with capture_logs() as logs:
            async with r:
                r.peers.tell([o.record])
                await until(lambda: logs)
        assert [line["error"] for line in logs] == ["no answer in time"]
        silent.close()


# --- what goes wrong with one replica is no other one's business


@pytest.mark.parametrize("address", ["kulvert-2..svc:8445", f"{300 * 'x'}:1", "x\0y:1", "unix:/a\0b"], ids=range(4))
async def test_a_bad_address_of_one_replica_harms_no_other(site: Site, address: str) -> None:
    with capture_logs() as logs:
        site.r.peers.tell([site.r.record, site.o.record, Replica("x", address)])
        await asyncio.sleep(0.3)
    assert [line["replica"] for line in logs if line["event"] == "another replica is not reached"] == ["x"]
    assert site.r.peers.ready("o")


async def test_a_bug_with_one_replica_is_told_once_and_harms_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial = site.r.peers._dialler.dial

    async def fails(replica: Replica, *rest: Any) -> Any:
        if replica.identity == "x":
            raise UnicodeError("a bug")
        return await dial(replica, *rest)

    monkeypatch.setattr(site.r.peers._dialler, "dial", fails)  # as a library may
    with capture_logs() as logs:
        site.r.peers.tell([site.r.record, site.o.record, Replica("x", "127.0.0.1:1")])
        await asyncio.sleep(0.5)
    assert [line["event"] for line in logs] == ["internal error with another replica"]
    assert site.r.peers.ready("o")


async def test_a_link_whose_own_links_fail_is_dialled_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []

    async def fails(_links: AskingLinks) -> None:
        failed.append(1)
        monkeypatch.undo()
        raise KeyError("a bug")

    monkeypatch.setattr(AskingLinks, "run", fails)
    site.r.peers._sessions["o"].mux.close("the test ends it")
    await until(lambda: failed)
    await until(lambda: site.r.peers.ready("o"))
    assert len(site.r.peers._all) == 1


async def test_links_come_back_when_they_are_begun_again_after_a_failure(
    replicas_ca: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await Server("o", replicas_ca).listen() as o:
        r = Server("r", replicas_ca)
        attend, failing = Peers._attend, [True]

        def fails(peers: Peers, group: asyncio.TaskGroup) -> None:
            if peers is r.peers and peers.ready("o") and failing.pop():
                raise KeyError("a bug")
            attend(peers, group)

        monkeypatch.setattr(Peers, "_attend", fails)
        r.peers.tell([o.record])
        running = asyncio.create_task(r.peers.run())
        await until(lambda: r.peers.ready("o"))
        r.peers.tell([o.record])
        with pytest.raises(ExceptionGroup):
            await running
        assert not r.peers.ready("o")
        monkeypatch.undo()
        running = asyncio.create_task(r.peers.run())
        await until(lambda: r.peers.ready("o"))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
