"""A whole agent between a scripted API server and a stub: how it starts, waits, gives up on silence, and ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.app import AgentApp
from agent.config import load
from agent.renewal import RenewalTiming
from agent.settings import ConfigError
from tests.agent.apiserver import Client, Script, ScriptedServer
from tests.agent.pki import Authority
from tests.support.attached import HOST, SECRET, Asked, Stub, ask, eventually, nothing_left
from tunnel import proof
from tunnel.errors import Hop, Reason
from tunnel.limits import Timing
from tunnel.ports import RequestBlock

TOKEN = f"kvt_{'a' * 16}.{proof.encode(SECRET)}"


class ApiServer:
    """Answers the agent's own questions, and users' requests at once, late or never; it can fall silent altogether."""

    def __init__(self) -> None:
        self.silent = asyncio.Event()
        self.late = 0.0
        self.uid = "uid-of-alpha"
        self.pings = 0
        self.ping_late = 0.0
        self.deaf_to_pings = 0
        """So many connections on which a ping is not answered, though the API server lives."""

    async def __call__(self, client: Client) -> None:
        while True:
            head = await client.head()
            if self.silent.is_set():
                await client.rest()
                return
            target = head.split()[1]
            if target == b"/livez/ping":
                self.pings += 1
                if self.deaf_to_pings:
                    self.deaf_to_pings -= 1
                    await client.rest()
                    return
                await asyncio.sleep(self.ping_late)
                await client.say(_answer(403, b"no"))
            elif target == b"/api/v1/namespaces/kube-system":
                await client.say(_answer(200, json.dumps({"metadata": {"uid": self.uid}}).encode()))
            elif target.startswith(b"/slow"):
                await asyncio.sleep(self.late)
                await client.say(_answer(200, b"late"))
            elif target.startswith(b"/never"):
                await client.rest()
            elif target.startswith(b"/stream"):
                await client.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n")
                await client.rest()
            else:
                await client.say(_answer(200, b"ok"))


def _answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def request(target: bytes, method: bytes = b"GET", *, long: bool = False) -> RequestBlock:
    return RequestBlock(method, target, [(b"impersonate-user", b"alice")], long=long)


def upgrade(target: bytes) -> RequestBlock:
    headers = [(b"impersonate-user", b"alice"), (b"upgrade", b"SPDY/3.1"), (b"x-stream-protocol-version", b"v4")]
    return RequestBlock(b"POST", target, headers, ended=False, upgrade=True)


class Bed:
    """API server, stub, and agents to start."""

    def __init__(self, api: ApiServer, stub: Stub, config: Path) -> None:
        self.api = api
        self.stub = stub
        self.config = config

    def app(self, **flags: object) -> AgentApp:
        return AgentApp(load(self.config, {}, flags), "1.0", env={})

    @asynccontextmanager
    async def running(self, **flags: object) -> AsyncIterator[AgentApp]:
        app = self.app(**flags)
        task = asyncio.create_task(app.run())
        try:
            await eventually(lambda: self.stub.sessions.all() and app.agent and app.agent.attached)
            yield app
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: not self.stub.sessions.all())


@pytest.fixture
async def bed(authority: Authority, tmp_path: Path) -> AsyncIterator[Bed]:
    api = ApiServer()
    script: Script = api
    pair = authority.issue("apiserver", HOST)
    async with (
        nothing_left(),
        ScriptedServer(pair.server_context(tmp_path), script) as server,
        Stub(authority, tmp_path / "stub", timing=Timing()) as stub,
    ):
        stub.book.add("a" * 16, "alpha")
        (tmp_path / "ca.crt").write_text(authority.pem)
        kubeconfig = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": f"https://{HOST}:{server.port}",
                        "certificate-authority": str(tmp_path / "ca.crt"),
                    },
                }
            ],
            "users": [{"name": "u", "user": {"token": "agents-own"}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
        config = {
            "servers": [f"https://{stub.name}"],
            "cluster": "alpha",
            "joinToken": TOKEN,
            "caFile": str(tmp_path / "ca.crt"),
            "kubeconfig": str(tmp_path / "kubeconfig"),
            "agent": "agent-1",
        }
        (tmp_path / "agent.yaml").write_text(json.dumps(config))
        yield Bed(api, stub, tmp_path / "agent.yaml")


async def answered(bed: Bed, target: bytes = b"/api", timeout: float = 3.0) -> Asked:
    asked = ask(bed.stub, head=request(target))
    await eventually(lambda: asked.over, timeout)
    return asked


async def test_it_learns_the_clusters_id_attaches_and_serves(bed: Bed) -> None:
    async with bed.running():
        assert bed.stub.book.pins["alpha"] == "uid-of-alpha"
        assert (await answered(bed)).body == b"ok"
        (session,) = bed.stub.sessions.all()
        assert session.info.software == "kulvert/1.0"
        await eventually(lambda: session.health.message == "")
        assert session.health.ready


async def test_stop_ends_it_at_once_when_nothing_is_under_way(bed: Bed) -> None:
    app = bed.app()
    task = asyncio.create_task(app.run())
    await eventually(lambda: bed.stub.sessions.all())
    began = time.monotonic()
    app.stop()
    await asyncio.wait_for(task, 2.0)
    assert time.monotonic() - began < 1.0
    await eventually(lambda: not bed.stub.sessions.all())


@pytest.mark.parametrize("target", [b"/stream", b"/never"])
async def test_stop_waits_for_what_is_under_way_as_long_as_it_is_told(bed: Bed, target: bytes) -> None:
    app = bed.app(drain="1")
    task = asyncio.create_task(app.run())
    await eventually(lambda: bed.stub.sessions.all())
    asked = ask(bed.stub, head=request(target))
    await eventually(lambda: bed.stub.sessions.all()[0].load)
    await asyncio.sleep(0.1)
    began = time.monotonic()
    app.stop()
    await asyncio.wait_for(task, 5.0)
    assert 0.9 < time.monotonic() - began < 2.5
    await eventually(lambda: asked.over)
    assert asked.reset is not None


async def test_stop_before_it_has_begun(bed: Bed) -> None:
    app = bed.app()
    app.stop()
    await asyncio.wait_for(app.run(), 2.0)
    assert not bed.stub.sessions.all()


async def test_stop_while_the_clusters_id_cannot_be_read(bed: Bed) -> None:
    bed.api.uid = ""
    app = bed.app()
    task = asyncio.create_task(app.run())
    await asyncio.sleep(0.2)
    app.stop()
    await asyncio.wait_for(task, 2.0)


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.3])
async def test_a_deadline_around_run_leaves_nothing(bed: Bed, seconds: float, silent: bool) -> None:
    """Cancelled while it asks for the id, dials, proves, or serves."""
    if silent:
        bed.api.silent.set()
    async with nothing_left():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bed.app().run(), seconds)
        await eventually(lambda: not bed.stub.sessions.all())


async def test_cancelled_with_streams_it_ends_them_and_leaves_nothing(bed: Bed) -> None:
    async with nothing_left():
        async with bed.running():
            asked = [ask(bed.stub, head=request(b"/stream")) for _ in range(5)]
            await eventually(lambda: all(one.body for one in asked))
        assert all(one.reset is not None for one in asked)


# --- enrolment


async def test_a_state_directory_makes_the_token_needless_after_the_first_start(bed: Bed, tmp_path: Path) -> None:
    state = {"state_dir": str(tmp_path / "state")}
    async with bed.running(**state):
        pass
    assert len(bed.stub.book.requests) == 1
    config = json.loads(bed.config.read_text())
    del config["joinToken"]
    bed.config.write_text(json.dumps(config))
    async with bed.running(**state):
        assert (await answered(bed)).body == b"ok"
    assert len(bed.stub.book.requests) == 1


async def test_without_a_certificate_and_a_token_it_does_not_start(bed: Bed, tmp_path: Path) -> None:
    config = json.loads(bed.config.read_text())
    del config["joinToken"]
    bed.config.write_text(json.dumps(config))
    for state in ({}, {"state_dir": str(tmp_path / "state")}):
        with pytest.raises(ConfigError, match="set joinTokenFile"):
            await bed.app(**state).run()


async def test_an_identity_of_another_cluster_stops_it(bed: Bed, tmp_path: Path) -> None:
    state = {"state_dir": str(tmp_path / "state")}
    async with bed.running(**state):
        pass
    bed.api.uid = "uid-of-another"
    with pytest.raises(ConfigError, match="move the file away"):
        await bed.app(**state).run()
    assert len(bed.stub.book.requests) == 1


async def test_stop_while_it_waits_to_be_accepted(bed: Bed) -> None:
    bed.stub.book.waiting.add("alpha")
    app = bed.app()
    task = asyncio.create_task(app.run())
    await eventually(lambda: bed.stub.book.requests)
    app.stop()
    await asyncio.wait_for(task, 2.0)


async def test_a_certificate_is_renewed_in_a_running_agent(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.app.RenewalTiming", lambda: RenewalTiming(look=0.05))
    bed.stub.book.lifetime = 2.0  # backdated by 300 s: due at once
    async with bed.running():
        (session,) = bed.stub.sessions.all()
        bed.stub.book.lifetime = 86_400.0
        await eventually(lambda: bed.stub.book.renewals)
        assert bed.stub.sessions.all() == [session]


# --- an API server that answers nobody (agent.silence)


async def test_a_silent_api_server_fails_what_waits_in_time(bed: Bed) -> None:
    async with bed.running():
        assert (await answered(bed)).body == b"ok"
        bed.api.silent.set()
        for _ in range(2):  # the first on a kept connection, the second on one that is dialled
            began = time.monotonic()
            asked = await answered(bed)
            assert asked.reset is not None
            assert (asked.reset.hop, asked.reset.reason) == (Hop.APISERVER, Reason.TIMEOUT)
            assert 0.75 < time.monotonic() - began < 2.0
        bed.api.silent.clear()
        assert (await answered(bed)).body == b"ok"


async def test_an_answer_that_is_late_is_waited_for_while_the_api_server_lives(bed: Bed) -> None:
    bed.api.late = 2.5
    async with bed.running():
        asked = await answered(bed, b"/slow", timeout=5.0)
        assert (asked.reset, asked.body) == (None, b"late")
        assert 2 <= bed.api.pings <= 5  # a 403 was a sign of life; one after the other, twice as late each time


async def test_an_api_server_that_is_slow_to_say_that_it_lives_loses_no_request(bed: Bed) -> None:
    """Each ping takes longer than it would take to lose patience once."""
    bed.api.late, bed.api.ping_late = 3.5, 1.3
    async with bed.running():
        asked = [ask(bed.stub, head=request(b"/slow", method)) for method in (b"GET", b"POST")]
        await eventually(lambda: all(one.over for one in asked), 6.0)
        assert [(one.reset, one.body) for one in asked] == [(None, b"late")] * 2


async def test_a_connection_of_the_pings_that_is_dead_alone_loses_no_request(bed: Bed) -> None:
    bed.api.late, bed.api.deaf_to_pings = 2.5, 1
    async with bed.running():
        asked = await answered(bed, b"/slow", timeout=5.0)
        assert (asked.reset, asked.body) == (None, b"late")


@pytest.mark.parametrize("head", [request(b"/never", long=True), upgrade(b"/never")], ids=["logs -f", "exec"])
async def test_what_has_no_end_costs_one_ping_and_is_never_given_up_once_the_api_server_lived(
    bed: Bed, head: RequestBlock
) -> None:
    """`logs -f` of a pod that says nothing has no head for hours: as quiet a stream as one that has begun."""
    async with bed.running():
        stream = ask(bed.stub, head=head)
        await asyncio.sleep(2.0)
        assert bed.api.pings == 1
        bed.api.silent.set()
        assert (await answered(bed)).reset is not None
        assert not stream.over


@pytest.mark.parametrize("head", [request(b"/api", long=True), upgrade(b"/api")], ids=["watch", "exec"])
async def test_what_has_no_end_is_given_up_where_the_api_server_was_silent_from_the_start(
    bed: Bed, head: RequestBlock
) -> None:
    async with bed.running():
        bed.api.silent.set()
        began = time.monotonic()
        asked = ask(bed.stub, head=head)
        await eventually(lambda: asked.over)
        assert asked.reset is not None
        assert asked.reset.reason is Reason.TIMEOUT
        assert time.monotonic() - began < 2.0


async def test_whoever_comes_while_a_ping_is_under_way_waits_no_longer_than_others(bed: Bed) -> None:
    async with bed.running():
        bed.api.silent.set()
        took: list[float] = []

        async def one(after: float) -> None:
            await asyncio.sleep(after)
            began = time.monotonic()
            assert (await answered(bed)).reset is not None
            took.append(time.monotonic() - began)

        await asyncio.gather(*(one(0.1 * n) for n in range(25)))
        assert max(took) < 2.0


async def test_an_api_server_that_falls_silent_later_costs_what_waits_its_patience_again(bed: Bed) -> None:
    """An old request that has seen signs of life does not keep a new one from being told in time."""
    async with bed.running():
        old = ask(bed.stub, head=request(b"/never"))
        await asyncio.sleep(2.0)
        assert not old.over
        bed.api.silent.set()
        began = time.monotonic()
        assert (await answered(bed)).reset is not None
        assert time.monotonic() - began < 2.0
        assert old.reset is not None


async def test_streams_that_have_begun_are_left_alone(bed: Bed) -> None:
    async with bed.running():
        stream = ask(bed.stub, head=request(b"/stream"))
        await eventually(lambda: stream.body)
        bed.api.silent.set()
        assert (await answered(bed)).reset is not None
        assert not stream.over


async def test_nobody_is_asked_while_nobody_waits(bed: Bed) -> None:
    async with bed.running():
        await asyncio.sleep(1.0)
        assert bed.api.pings == 0


def test_settings_that_cannot_work_are_told_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="drain must be a number"):
        load(None, {}, {"servers": ["https://x"], "cluster": "a", "join_token": TOKEN, "drain": "soon"})
    assert load(None, {}, {"servers": ["https://x"], "cluster": "a", "join_token": TOKEN}).drain == 25
