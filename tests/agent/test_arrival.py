"""A real agent before several replicas: where it goes when one of them has not got its cluster, or hands it over."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.course import MOVES
from agent.links import LinkPoolLimits
from agent.session import AgentSession
from stub.attaching import Attaching
from stub.ownership import Alone, Place, Replica
from tests.agent.pki import Authority
from tests.agent.test_attach import Delays
from tests.support.attached import QUICK, Answering, Asked, Real, Stub, ask, attached, eventually, get, nothing_left
from tunnel.backoff import BackOff
from tunnel.errors import Reason
from tunnel.frames import CONTROL, encode
from tunnel.handshake import Refused, Wait, Welcome

WARM = LinkPoolLimits(most=100, warm=1, keep=math.inf)
NEVER = BackOff(lambda: 0.0, first=60.0, most=120.0)


@dataclass
class Elsewhere(Alone):
    """A replica that has no cluster: another has them (at `address`), or nobody."""

    address: str = ""
    holder: str = "stub-2"
    epoch: int = 7
    mine: bool = False
    asked: int = 0
    _changed: list[Callable[[], None]] = field(default_factory=list)

    def place(self, cluster: str) -> Place:
        self.asked += 1
        return Place("me", True, self.epoch) if self.mine else Place(self.holder, False)

    def replicas(self) -> tuple[Replica, ...]:
        return (Replica(self.holder, "", self.address),)

    def leader(self) -> str:
        return self.holder


@asynccontextmanager
async def two(
    authority: Authority, directory: Path, where: Elsewhere, **second: Any
) -> AsyncIterator[tuple[Stub, Stub]]:
    """A replica that has not got the cluster, and one that has."""
    async with (
        nothing_left(),
        Stub(authority, directory / "a", ownership=where) as first,
        Stub(authority, directory / "b", book=first.book, **second) as other,
    ):
        yield first, other


async def answered(stub: Stub) -> Asked:
    asked = ask(stub)
    await eventually(lambda: asked.over)
    return asked


# --- moved and standby


@pytest.mark.parametrize("known", ["a server", "a name"])
async def test_it_goes_at_once_where_it_is_sent(authority: Authority, tmp_path: Path, known: str) -> None:
    where = Elsewhere()
    async with two(authority, tmp_path, where) as (first, other):
        where.address = f"https://{other.name}"
        servers = (first.name, other.name) if known == "a server" else (first.name,)
        names = () if known == "a server" else ("127.0.0.1",)
        async with attached(other, servers=servers, link_names=names, backoff=NEVER, links=WARM):
            assert (await answered(other)).body == b"hello"
            await eventually(lambda: other.sessions.all()[0].mux.own_links)
        assert where.asked == 1


async def test_it_goes_nowhere_that_its_configuration_does_not_allow_and_says_so_once(
    authority: Authority, tmp_path: Path
) -> None:
    where = Elsewhere(address="https://evil.test:8444")
    async with nothing_left(), Stub(authority, tmp_path / "a", ownership=where) as first:
        with capture_logs() as logs:
            async with Real(first):
                await eventually(lambda: where.asked > 3)
    told = [line["error"] for line in logs if line["event"] == "the server's address is not followed"]
    assert len(told) == 1
    assert "does not allow evil.test:8444" in told[0]


async def test_two_that_send_it_to_one_another_do_not_keep_it_busy(authority: Authority, tmp_path: Path) -> None:
    one, other, delays = Elsewhere(), Elsewhere(), Delays()
    async with two(authority, tmp_path, one, ownership=other) as (a, b):
        one.address, other.address = f"https://{b.name}", f"https://{a.name}"
        async with Real(a, servers=(a.name, b.name), backoff=delays):
            await eventually(lambda: len(delays.waited) >= 3)
            assert one.asked + other.asked <= 4 * (len(delays.waited) + 1)


async def test_where_one_stands_by_the_next_is_tried_at_once(authority: Authority, tmp_path: Path) -> None:
    where = Elsewhere()  # no address: standby
    async with two(authority, tmp_path, where) as (first, other):
        async with attached(other, servers=(first.name, other.name), backoff=NEVER):
            assert where.asked == 1
        async with attached(other, servers=("127.0.0.1:1", first.name, other.name), backoff=NEVER):
            pass


async def test_when_all_stand_by_it_backs_off_after_one_round_and_begins_with_another(
    authority: Authority, tmp_path: Path
) -> None:
    one, other, delays = Elsewhere(), Elsewhere(), Delays()
    async with (
        two(authority, tmp_path, one, ownership=other) as (a, b),
        Real(a, servers=(a.name, b.name), backoff=delays) as real,
    ):
        await eventually(lambda: len(delays.waited) >= 2)
        rounds = len(delays.waited)
        assert 2 * rounds <= one.asked + other.asked <= 2 * rounds + 2
        other.mine = True
        await eventually(lambda: b.sessions.all() and real.agent.attached)


# --- wait


async def test_a_stub_that_asks_for_patience_gets_it(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The welcome comes long after the greeting should have been over."""
    monkeypatch.setattr("agent.knock.GREETING", 0.3)
    later: list[Callable[[], None]] = []
    real_welcome = Attaching._welcome

    def welcome(self: Attaching, connection: Any, *rest: Any) -> None:
        self._finish()  # its own deadline
        connection.send(encode(CONTROL, payload=Wait(1).encode()))
        later.append(lambda: real_welcome(self, connection, *rest))

    monkeypatch.setattr(Attaching, "_welcome", welcome)
    async with nothing_left(), Stub(authority, tmp_path / "a") as stub, Real(stub, backoff=NEVER) as real:
        await eventually(lambda: later)
        await asyncio.sleep(0.6)
        assert not real.agent.attached
        later[0]()
        await eventually(lambda: real.agent.attached)


# --- handed over


async def test_a_drain_with_an_address_leads_there_while_the_old_session_finishes(
    authority: Authority, tmp_path: Path
) -> None:
    """Twice, while both earlier ones still have something under way: nothing is lost."""
    handler = Answering(body=None)
    async with (
        nothing_left(),
        Stub(authority, tmp_path / "a", epoch=1) as a,
        Stub(authority, tmp_path / "b", epoch=2, book=a.book) as b,
        Stub(authority, tmp_path / "c", epoch=3, book=a.book) as c,
        attached(a, handler, link_names=("127.0.0.1",), backoff=NEVER, stable=60.0) as real,
    ):
        first = ask(a)
        await eventually(lambda: len(handler.begun) == 1)
        a.sessions.drain(["alpha"], f"https://{b.name}")
        await eventually(lambda: b.sessions.all())
        second = ask(b)
        await eventually(lambda: len(handler.begun) == 2)
        b.sessions.drain(["alpha"], f"https://{c.name}")
        await eventually(lambda: c.sessions.all())
        await eventually(lambda: len(real.agent.sessions) == 3)
        late = Asked()
        a.sessions.all()[0].open(get(), late)
        await eventually(lambda: late.over)
        assert late.reset is not None
        assert late.reset.reason is Reason.STALE_EPOCH
        for exchange, _, _ in handler.begun:
            handler.answer(exchange, b"late")
        await eventually(lambda: first.over and second.over)
        assert (first.body, second.body) == (b"late", b"late")
        await eventually(lambda: not a.sessions.all() and not b.sessions.all())
        handler.body = b"new"
        assert (await answered(c)).body == b"new"
        assert len(real.agent.sessions) == 1


async def test_a_drain_to_where_it_may_not_go_leads_to_its_own_servers(authority: Authority, tmp_path: Path) -> None:
    async with (
        nothing_left(),
        Stub(authority, tmp_path / "a") as a,
        Stub(authority, tmp_path / "b", book=a.book) as b,
        attached(a, servers=(a.name, b.name), backoff=NEVER),
    ):
        a.sessions.drain(None, "https://evil.test")
        await eventually(lambda: b.sessions.all(), 1.0)


async def test_servers_that_hand_it_on_again_and_again_do_not_keep_it_busy(
    authority: Authority, tmp_path: Path
) -> None:
    attached_at: list[str] = []
    async with nothing_left(), Stub(authority, tmp_path / "a") as stub:

        def hand_on(cluster: str) -> None:
            attached_at.append(cluster)
            asyncio.get_running_loop().call_soon(stub.sessions.drain, [cluster])

        stub.sessions.subscribe(hand_on)
        async with Real(stub, backoff=NEVER, stable=60.0):
            await eventually(lambda: len(attached_at) > MOVES)
            await asyncio.sleep(0.3)
    assert len(attached_at) == MOVES + 1


# --- the fence


async def test_a_session_of_an_earlier_holder_reaches_nobody_once_a_later_one_is_known(
    authority: Authority, tmp_path: Path
) -> None:
    """The old stub was never told: it has lost its Lease, and does not know it."""
    handler = Answering()
    async with (
        nothing_left(),
        Stub(authority, tmp_path / "a", epoch=5) as old,
        Stub(authority, tmp_path / "b", epoch=6, book=old.book) as new,
        attached(old, handler, servers=(old.name, new.name), backoff=NEVER) as real,
    ):
        (ours,) = real.agent.sessions
        leave(ours)
        await eventually(lambda: new.sessions.all())
        refused = await answered(old)
        assert refused.reset is not None
        assert refused.reset.reason is Reason.STALE_EPOCH
        assert not handler.begun
        assert (await answered(new)).body == b"hello"
        await eventually(lambda: not old.sessions.all())  # it has understood


async def test_a_session_of_the_same_holding_goes_on(authority: Authority, tmp_path: Path) -> None:
    async with nothing_left(), Stub(authority, tmp_path / "a") as stub, attached(stub, backoff=NEVER) as real:
        (before,) = stub.sessions.all()
        leave(next(iter(real.agent.sessions)))
        await eventually(lambda: len(real.agent.sessions) == 2)
        asked = Asked()
        before.open(get(), asked)
        await eventually(lambda: asked.over)
        assert asked.body == b"hello"


def leave(session: AgentSession) -> None:
    """As a drain does, but the stub does not know."""
    session.draining = session.replaced = True
    session._left.set()


async def test_the_welcomes_epoch_counts_where_the_challenge_leaves_it_open(
    authority: Authority, tmp_path: Path
) -> None:
    where = Elsewhere(mine=True, epoch=9)
    async with (
        nothing_left(),
        Stub(authority, tmp_path / "a", ownership=where, epoch=0) as stub,
        attached(stub) as real,
    ):
        assert (await answered(stub)).body == b"hello"
        assert real.agent._arrival._epochs.highest == 9
        where.epoch = 8
        stub.sessions.all()[0].mux.close("cut by the test")
        with capture_logs() as logs:
            await eventually(lambda: [line for line in logs if "is older than 9" in str(line.get("error"))])
        assert not real.agent.attached


async def test_a_stub_that_falls_silent_is_left(authority: Authority, tmp_path: Path) -> None:
    """It keeps its promise while nobody asks for anything, until it is paused: its socket stays open."""
    timing = replace(QUICK, silence=0.8, dead_after=30.0, ping_after=10.0)
    async with (
        nothing_left(),
        Stub(authority, tmp_path / "a", timing=timing) as stub,
        attached(stub, backoff=BackOff(lambda: 0.0, first=0.05, most=5.0), timing=timing) as real,
    ):
        (session,) = stub.sessions.all()
        await asyncio.sleep(1.5)
        assert stub.sessions.all() == [session]
        session.mux.sweep = lambda now: None  # type: ignore[method-assign]  # noqa: ARG005 -- paused
        began = time.monotonic()
        await eventually(lambda: session.mux.closed_reason is not None)
        assert 0.3 < time.monotonic() - began < 2.0
        await eventually(lambda: real.agent.attached and stub.sessions.all() not in ([], [session]))


# --- own links


async def test_own_links_go_where_the_welcome_says(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = Welcome.encode
    async with nothing_left(), Stub(authority, tmp_path / "a") as stub:

        def encode_with(self: Welcome) -> bytes:
            told = replace(self, address=f"https://localhost:{stub.port}", server_name="localhost")
            return encoded(told if self.session else self)

        monkeypatch.setattr(Welcome, "encode", encode_with)
        async with attached(stub, link_names=("localhost",), links=WARM) as real:
            (session,) = real.agent.sessions
            assert session.links_at.address.host == "localhost"
            await eventually(lambda: stub.sessions.all()[0].mux.own_links)
        async with attached(stub, links=WARM) as real:
            (session,) = real.agent.sessions
            assert session.links_at.address.host == "127.0.0.1"
            await eventually(lambda: stub.sessions.all()[0].mux.own_links)


async def test_an_own_link_that_was_moved_is_dialled_there(authority: Authority, tmp_path: Path) -> None:
    """A load balancer leads each connection to another replica."""
    async with nothing_left(), Stub(authority, tmp_path / "a") as a, Stub(authority, tmp_path / "b", book=a.book) as b:

        def elsewhere(_session: str) -> Replica:
            return Replica("a", "", f"https://{a.name}")

        object.__setattr__(b.setting, "elsewhere", elsewhere)
        async with attached(a, link_names=("127.0.0.1",), servers=(a.name, b.name), links=WARM) as real:
            (session,) = real.agent.sessions
            await eventually(lambda: a.sessions.all()[0].mux.own_links)
            at_a = session.links_at
            session.links_at = replace(at_a, address=replace(at_a.address, port=b.port))
            await real.agent._arrival.attach_own(session, 99)
            assert 99 in a.sessions.all()[0].mux.own_links
            assert session.links_at.address.port == a.port


async def test_an_own_link_that_is_refused_for_good_says_so(authority: Authority, tmp_path: Path) -> None:
    async with nothing_left(), Stub(authority, tmp_path / "a") as a, attached(a, links=WARM) as real:
        (session,) = real.agent.sessions
        await eventually(lambda: a.sessions.all()[0].mux.own_links)
        with pytest.raises(Refused, match="was used before"):
            await real.agent._arrival.attach_own(session, 1)
