"""Agents before a port with two processes behind it: who understands hints comes to the one that has its cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.workers import control
from gateway.workers.clienthello import hint
from gateway.workers.porter import Porter
from stub import door
from stub.attaching import Attaching
from stub.door import AgentsDoor, listening
from stub.ownership import Alone, Place, Replica
from tests.agent.pki import Authority
from tests.agent.test_arrival import NEVER, WARM
from tests.support.attached import Real, Stub, attached, eventually, nothing_left, shared_hello
from tunnel.adapter import LinkConnection
from tunnel.batch import Batch
from tunnel.frames import CONTROL, encode
from tunnel.handshake import Challenge, Hello, Refused, Welcome
from tunnel.messages import Message, parse_message


class Second(Alone):
    """The second process has all clusters, as the first one sees it."""

    def __init__(self) -> None:
        super().__init__("one", 7)

    def place(self, cluster: str) -> Place:
        return Place("two", False)

    def replicas(self) -> tuple[Replica, ...]:
        return (Replica("two", "unix:/x", hint=hint(1)),)


@dataclass
class Adopted:
    """Connections that the first process would pass on."""

    hellos: list[Message] = field(default_factory=list)

    def adopt(self, connection: LinkConnection, replica: Replica, challenge: Challenge, hello: Message) -> None:
        self.hellos.append(hello)
        connection.end("adopted")


@dataclass
class Scene:
    name: str
    """The port of both."""
    first: Stub
    second: Stub
    adopted: Adopted


@pytest.fixture
def authority() -> Authority:
    return Authority()


@asynccontextmanager
async def behind_a_port(authority: Authority, at: Path) -> AsyncIterator[Scene]:
    loop, adopted = asyncio.get_running_loop(), Adopted()
    more = {"ownership": Second(), "adopter": adopted, "hint": hint(0)}
    listeners = await listening("127.0.0.1", 0)
    channels = [control.pair() for _ in range(2)]
    porter = Porter(listeners, [ours for ours, _ in channels], loop.time)
    async with (
        nothing_left(),
        Stub(authority, at / "a", **more) as first,
        Stub(authority, at / "b", book=first.book, hint=hint(1)) as second,
    ):
        doors = [AgentsDoor(one.setting, Batch(loop.call_soon), one._tls) for one in (first, second)]
        for one, (_, theirs) in zip(doors, channels, strict=True):
            one.receive(theirs)
        porter.start()
        try:
            yield Scene(f"127.0.0.1:{listeners[0].getsockname()[1]}", first, second, adopted)
        finally:
            porter.stop()
            for one in doors:
                await one.stop()
            for sock in [*listeners, *(ours for ours, _ in channels)]:
                sock.close()


async def test_an_agent_and_its_own_links_come_to_the_process_that_has_its_cluster(
    authority: Authority, tmp_path: Path
) -> None:
    async with behind_a_port(authority, tmp_path) as scene:
        for _ in range(3):  # whichever it meets first
            async with attached(scene.second, servers=(scene.name,), backoff=NEVER, links=WARM) as real:
                (session,) = real.agent.sessions
                assert session.links_at.hint == hint(1)
                await eventually(lambda: scene.second.sessions.all()[0].mux.own_links)
                for link_id in (90, 91, 92):
                    await real.agent._arrival.attach_own(session, link_id)
                assert {90, 91, 92} <= set(scene.second.sessions.all()[0].mux.own_links)
            await eventually(lambda: not scene.second.sessions.all())
        assert not scene.adopted.hellos
        assert not scene.first.sessions.all()


async def test_an_agent_whose_hint_leads_nowhere_is_passed_on_and_not_sent_away_for_ever(
    authority: Authority, tmp_path: Path
) -> None:
    """A load balancer has ended its TLS, so nobody sees what it offers."""
    async with behind_a_port(authority, tmp_path) as scene, Real(scene.first, backoff=NEVER):
        await eventually(lambda: scene.adopted.hellos)
        assert "hints" not in scene.adopted.hellos[0]


@pytest.mark.parametrize("hints", [True, False], ids=["understood", "older"])
async def test_only_who_understands_hints_is_sent_to_another_process(
    authority: Authority, tmp_path: Path, hints: bool
) -> None:
    async with behind_a_port(authority, tmp_path) as scene:
        link = await scene.first.dial()
        async with link:
            hello = shared_hello(link, await link.challenge(), hints=hints)
            link.say(encode(CONTROL, payload=hello.encode()))
            if hints:
                message = parse_message((await link.frame()).payload, 8192)
                refused = Refused.parse(message)
                assert (refused.reason, refused.address, refused.hint) == ("moved", "", hint(1))
            else:
                await eventually(lambda: scene.adopted.hellos)
                assert "hints" not in scene.adopted.hellos[0]


class PassedOn(Attaching):
    """As if another process had passed the connection on: that one has sent the challenge."""

    def on_open(self, connection: LinkConnection) -> None:
        super().on_open(connection)
        self._adopted = True


@pytest.mark.parametrize("passed_on", [True, False])
async def test_who_was_passed_on_is_given_no_hint_since_its_own_links_would_be_too(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed_on: bool
) -> None:
    if passed_on:
        monkeypatch.setattr(door, "Attaching", PassedOn)
    async with behind_a_port(authority, tmp_path) as scene, await scene.second.dial() as link:
        link.say(encode(CONTROL, payload=shared_hello(link, await link.challenge()).encode()))
        assert (await link.welcome()).hint == ("" if passed_on else hint(1))


def test_hints_travel_in_the_messages_and_strange_ones_do_not() -> None:
    refused = Refused("moved", "there", hint=hint(3))
    assert Refused.parse(parse_message(refused.encode(), 8192)).hint == hint(3)
    welcome = Welcome(1, "s", "x", 4096, 10, hint=hint(3))
    again = Welcome.parse(parse_message(welcome.encode(), 8192), own=False)
    assert (again.hint, again.address) == (hint(3), "")
    for strange in ("h2", "kulvert-worker-", "kulvert-worker-1\n", "kulvert-worker-9999", 7):
        message = parse_message(refused.encode(), 8192) | {"hint": strange}
        assert Refused.parse(message).hint == ""
    hello = Hello(1, "shared", "n", "n", "p", cluster="a", cluster_id="u", agent="x", certificate="c", exchanges=1)
    assert "hints" not in parse_message(hello.encode(), 8192)
    assert parse_message(replace(hello, hints=True).encode(), 8192)["hints"] is True
