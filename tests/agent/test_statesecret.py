"""The agent's certificate outlives its pod, in a Secret that its replicas share, and no stranger's takes its place."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.identityfile import IDENTITY, AgentIdentity, IdentityFile
from agent.membership import Membership
from agent.renewal import Renewal, RenewalTiming
from agent.settings import ConfigError
from agent.statesecret import StateSecret, StateTiming
from agent.trust import TRUST, Trust
from tests.agent.apiserver import Client, Script
from tests.agent.conftest import Before
from tests.agent.pki import Authority
from tests.support.agentauthority import Book
from tunnel.calls import CallFailed, Params

CLUSTER, UID = "alpha", "u1"
QUICK = StateTiming(look=0.02, see=0.1, retry=0.02, timeout=0.5)
BOOK = Book()


class Secret:
    """One Secret behind a scripted API server, with the API server's rule for resourceVersion."""

    def __init__(self, **files: bytes) -> None:
        self.version = 1
        self.data = encoded(**files)
        self.asked: list[str] = []
        self.answers: list[int | None] = []
        """To be given first, in place of the truth; None cuts the connection."""
        self.before_put: Callable[[], None] = lambda: None

    def other_writes(self, identity: AgentIdentity) -> None:
        """Another replica is faster."""
        self.data |= encoded(agent=identity.pem())
        self.version += 1

    @property
    def identity(self) -> AgentIdentity:
        pem = base64.b64decode(self.data[IDENTITY]).decode()
        return next(one for one in KNOWN if one.pem().decode() == pem)

    def script(self) -> Script:
        async def script(client: Client) -> None:
            while True:
                head = await client.head()
                body = await client.body(head) if b"content-length: " in head else b""
                self.asked.append(head.decode().partition(" ")[0])
                code = self.answers.pop(0) if self.answers else self._do(head, body)
                if code is None:
                    client.writer.close()
                    return
                content = json.dumps(self._object() if code == 200 else {"message": "planted"}).encode()
                await client.say(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (code, len(content), content))

        return script

    def _do(self, head: bytes, body: bytes) -> int:
        if not head.startswith(b"PUT"):
            return 200
        self.before_put()
        sent = json.loads(body)
        if sent["metadata"] != self._object()["metadata"]:
            return 409
        self.data = sent["data"]
        self.version += 1
        return 200

    def _object(self) -> dict[str, Any]:
        found: dict[str, Any] = {"metadata": {"name": "state", "resourceVersion": str(self.version)}}
        return found | ({"data": self.data} if self.data else {})


def encoded(**files: bytes) -> dict[str, str]:
    return {f"{name}.pem": base64.b64encode(data).decode() for name, data in files.items()}


KNOWN: list[AgentIdentity] = []


def issued(cluster: str = CLUSTER, uid: str = UID) -> AgentIdentity:
    KNOWN.append(BOOK.issued(cluster, uid))
    return KNOWN[-1]


class Replica:
    """One agent's side: its directory, what it knows, and the Secret."""

    def __init__(self, pool: Any, directory: Path) -> None:
        self.directory = directory
        self.kept = StateSecret(pool, "kulvert", "state", directory, QUICK)

    async def start(self) -> Membership:
        await self.kept.restore(CLUSTER, UID)
        trust = Trust(Authority().pem, self.directory)
        self.membership = Membership(CLUSTER, UID, IdentityFile(self.directory), trust, lambda _tls: None)
        return self.membership

    async def look(self) -> bool:
        return await self.kept.look(self.membership)

    @property
    def has(self) -> AgentIdentity | None:
        return self.membership.identity


@pytest.fixture
def replicas(before: Before, tmp_path: Path) -> Callable[..., Any]:
    """`async with replicas(secret, n) as [a, b]`: started, before that Secret."""

    @asynccontextmanager
    async def made(secret: Secret, count: int = 1) -> AsyncIterator[list[Replica]]:
        async with before(secret.script()) as world:
            all_ = [Replica(world.pool, tmp_path / str(number) / "own") for number in range(count)]
            for one in all_:
                await one.start()
            yield all_

    return made


async def test_what_is_kept_is_restored_into_the_next_pod(replicas: Any) -> None:
    secret, mine = Secret(), issued()
    async with replicas(secret) as [first]:
        assert await first.look()
        assert "PUT" not in secret.asked
        await first.membership.adopt(mine)
        first.membership.announced(Authority().pem)
        assert await first.look()
        assert await first.look()
        assert secret.asked.count("PUT") == 1
        assert secret.identity is mine
    async with replicas(secret) as [_]:
        pass
    async with replicas(secret, 2) as [_, second]:
        assert second.has is not None
        assert second.has.der == mine.der
        assert (second.directory / TRUST).read_bytes() == (first.directory / TRUST).read_bytes()
        assert (second.directory / IDENTITY).stat().st_mode & 0o077 == 0
        assert await second.look()
    assert secret.asked.count("PUT") == 1


@pytest.mark.parametrize("kept", [issued("alpha", "another").pem(), issued("beta").pem(), issued().pem()[:300], b"x"])
async def test_what_is_no_certificate_of_this_agent_is_refused_and_stays(
    before: Before, tmp_path: Path, kept: bytes
) -> None:
    secret = Secret(agent=kept)
    async with before(secret.script()) as world:
        with pytest.raises(ConfigError, match="Secret kulvert/state") as refused:
            await Replica(world.pool, tmp_path / "own").start()
    assert list((tmp_path / "own").iterdir()) == []
    assert "PRIVATE KEY" not in str(refused.value)


async def test_a_strangers_certificate_that_comes_later_is_neither_used_nor_overwritten(replicas: Any) -> None:
    secret, mine = Secret(), issued()
    async with replicas(secret) as [one]:
        await one.membership.adopt(mine)
        secret.data = encoded(agent=issued("alpha", "another").pem())
        with capture_logs() as logs:
            assert not await one.look()
        assert one.has is mine
    assert "PUT" not in secret.asked
    assert "not for cluster 'alpha'" in logs[0]["error"]


async def test_a_file_that_is_there_is_not_overwritten_at_the_start(before: Before, tmp_path: Path) -> None:
    secret, there = Secret(agent=issued().pem()), issued()
    async with before(secret.script()) as world:
        one = Replica(world.pool, tmp_path / "own")
        (tmp_path / "own").mkdir(mode=0o700)
        IdentityFile(tmp_path / "own").save(there)
        membership = await one.start()
    assert membership.identity is not None
    assert membership.identity.der == there.der


# --- two replicas


async def test_who_loses_the_race_uses_what_the_other_has_written(replicas: Any) -> None:
    secret, faster, slower = Secret(), issued(), issued()
    async with replicas(secret, 2) as [one, two]:
        await one.membership.adopt(faster)
        await two.membership.adopt(slower)
        assert all(await asyncio.gather(one.look(), two.look()))
        assert one.has is not None
        assert two.has is not None
        assert one.has.der == two.has.der == secret.identity.der


async def test_a_write_between_reading_and_writing_is_not_lost(replicas: Any) -> None:
    secret, faster, slower = Secret(), issued(), issued()
    async with replicas(secret) as [one]:
        await one.membership.adopt(slower)
        secret.before_put = lambda: secret.other_writes(faster) if secret.version == 1 else None
        assert await one.look()
        assert one.has is not None
        assert one.has.der == faster.der
    assert secret.identity is faster


async def test_another_replicas_renewal_is_seen_before_this_one_renews(replicas: Any) -> None:
    now = BOOK.wall()
    due = Book(lifetime=60.0, wall=lambda: now, ca=BOOK.ca).issued(CLUSTER, UID)
    secret, calls = Secret(agent=due.pem()), []

    async def call(_method: str, params: Params, _timeout: float) -> Params:
        calls.append(params)
        raise CallFailed("busy", "not now")

    async with replicas(secret) as [one]:
        renewed = issued()
        secret.other_writes(renewed)
        membership, timing = one.membership, RenewalTiming(look=0.01, again=0.01)
        renewal = Renewal(membership, call, lambda: 0.5, timing, elsewhere=lambda: one.kept.look(membership))
        running = asyncio.create_task(renewal.run())
        await asyncio.sleep(0.2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert one.has is not None
        assert one.has.der == renewed.der
    assert not calls


async def test_an_older_certificate_of_another_replica_does_not_replace_a_renewed_one(replicas: Any) -> None:
    now = BOOK.wall()
    old = Book(lifetime=600.0, wall=lambda: now, ca=BOOK.ca).issued(CLUSTER, UID)
    secret, mine = Secret(), issued()
    async with replicas(secret) as [one]:
        secret.data = encoded(agent=old.pem())
        await one.membership.adopt(mine)
        assert await one.look()
        assert one.has is mine
    assert secret.identity is mine


async def test_a_certificate_that_the_server_refused_does_not_come_back_from_the_secret(replicas: Any) -> None:
    refused, anew = issued(), issued()
    secret = Secret(agent=refused.pem())
    async with replicas(secret) as [one]:
        one.membership.doubted = True
        assert await one.look()
        assert secret.identity is refused
        await one.membership.adopt(anew)
        assert await one.look()
        assert one.has is anew
    assert secret.identity is anew


async def test_authorities_that_another_has_heard_of_are_not_taken_back(replicas: Any) -> None:
    secret, mine = Secret(), issued()
    async with replicas(secret, 2) as [one, two]:
        await one.membership.adopt(mine)
        one.membership.announced(Authority().pem)
        assert await one.look()
        two.membership.announced(Authority().pem)
        assert await two.look()
        latest = secret.data[TRUST]
        for _ in range(2):
            assert await one.look()
    assert secret.data[TRUST] == latest


# --- a Secret that cannot be used


@pytest.mark.parametrize("answer", [403, 404, 500, 429, None])
async def test_a_secret_that_cannot_be_used_is_told_once_and_tried_again(
    replicas: Any, answer: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, mine = Secret(), issued()
    secret.answers = [answer] * 3
    with capture_logs() as logs:
        async with replicas(secret) as [one]:
            await one.membership.adopt(mine)
            assert not await one.look()
            assert not await one.look()
            assert one.has is mine
            running = asyncio.create_task(one.kept.run(one.membership))
            await asyncio.sleep(0.2)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert secret.identity is mine
    text = str(logs) + str(capsys.readouterr())
    assert text.count("cannot be kept in its Secret") == 1
    assert "planted" not in text
    assert "PRIVATE KEY" not in text


async def test_an_agent_that_could_not_read_it_at_its_start_is_enrolled_as_soon_as_it_can(replicas: Any) -> None:
    there = issued()
    secret = Secret(agent=there.pem())
    secret.answers = [500]
    async with replicas(secret) as [one]:
        assert one.has is None
        assert await one.look()
        assert one.has is not None
        assert one.has.der == there.der
    assert "PUT" not in secret.asked


async def test_an_answer_that_is_no_secret_is_none(before: Before, tmp_path: Path) -> None:
    async def script(client: Client) -> None:
        for content in (b"[" * 50_000, b"[1]", b'{"data": 1}', b'{"data": {"agent.pem": "!"}}'):
            await client.head()
            await client.say(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))

    async with before(script) as world:
        one = Replica(world.pool, tmp_path / "own")
        await one.start()
        for _ in range(3):
            await one.look()
        assert one.has is None
