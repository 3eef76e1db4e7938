"""A real round trip to the API server, and the cluster's id."""

from __future__ import annotations

import asyncio

import pytest

from agent.access import ApiServer, FixedAccess, verifying_context
from agent.clusterid import ClusterIdError, cluster_id
from agent.health import Health, HealthReport, HealthTiming, probe
from agent.pool import PoolLimits
from agent.question import MAX_ANSWER, Reply, ask
from tests.agent.apiserver import Client, Script, answering
from tests.agent.conftest import TOKEN, Before
from tests.agent.pki import Authority
from tunnel.errors import ExchangeReset, Reason

READY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NOT_READY = b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"


def answer(status: int, body: bytes) -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def test_a_probe_is_a_measured_round_trip_as_the_agent_itself(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await asyncio.sleep(0.05)
        await client.say(READY)
        await client.rest()

    async with before(script) as world:
        report = await probe(world.pool, 2.0)
        assert report.ready
        assert 50 <= report.latency_ms < 1000
        seen = bytes(world.server.clients[0].seen)
        assert seen.startswith(b"GET /readyz HTTP/1.1\r\n")
        assert b"authorization: Bearer " + TOKEN in seen
        assert b"impersonate" not in seen
        assert world.pool.state.idle == 1


@pytest.mark.parametrize(("status", "word"), [(500, "500"), (401, "credential"), (403, "system:public-info-viewer")])
async def test_what_is_not_ready_says_why(status: int, word: str, before: Before) -> None:
    async with before(answering(answer(status, b"no"))) as world:
        report = await probe(world.pool, 2.0)
        assert not report.ready
        assert word in report.message


async def test_a_frozen_api_server_is_not_ready_in_time(before: Before) -> None:
    async def frozen(client: Client) -> None:
        await client.head()
        await client.rest()

    async with before(frozen) as world:
        report = await probe(world.pool, 0.2)
        assert not report.ready
        assert "no answer within" in report.message
        await asyncio.sleep(0.05)
        assert world.pool.state.open == 0


@pytest.mark.parametrize("bad", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", b"nonsense\r\n\r\n", b""])
async def test_a_broken_answer_is_not_ready(bad: bytes, before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(bad)

    async with before(script) as world:
        assert not (await probe(world.pool, 2.0)).ready


async def test_an_answer_without_end_is_cut_off(before: Before) -> None:
    async with before(answering(answer(200, b"x" * (MAX_ANSWER + 1)))) as world:
        with pytest.raises(ExchangeReset) as caught:
            await ask(world.pool, b"/", 2.0)
        assert caught.value.reason is Reason.BAD_RESPONSE


async def test_changes_are_told_at_once_and_the_rest_at_intervals(before: Before) -> None:
    answers = [READY, READY, NOT_READY, NOT_READY, READY]

    async def script(client: Client) -> None:
        while answers:
            await client.head()
            await client.say(answers.pop(0))
        await client.rest()

    told = asyncio.Queue[HealthReport]()
    async with before(script) as world:
        health = Health(world.pool, told.put_nowait, HealthTiming(every=0.1, again=0.01, timeout=1.0))
        task = asyncio.create_task(health.run())
        async with asyncio.timeout(3):
            ready = [(await told.get()).ready for _ in range(4)]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert ready == [True, True, False, True]
        assert health.last is not None


async def test_the_cluster_id_is_the_uid_of_kube_system(before: Before) -> None:
    async with before(answering(answer(200, b'{"metadata":{"name":"kube-system","uid":"6f5c1b1f-4f0c"}}'))) as world:
        assert await cluster_id(world.pool) == "6f5c1b1f-4f0c"
        assert world.server.clients[0].seen.startswith(b"GET /api/v1/namespaces/kube-system HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("status", "body", "word", "temporary"),
    [
        (401, b"", "credential", False),
        (403, b"", "ClusterRole", False),
        (404, b"", "no namespace", False),
        (503, b"", "answered 503", True),
        (200, b"", "has no uid", False),
        (200, b"[]", "has no uid", False),
        (200, b'{"metadata":{"uid":"a b"}}', "has no uid", False),
    ],
)
async def test_a_missing_cluster_id_says_what_to_do(
    status: int, body: bytes, word: str, temporary: bool, before: Before
) -> None:
    async with before(answering(answer(status, body))) as world:
        with pytest.raises(ClusterIdError, match=word) as caught:
            await cluster_id(world.pool)
        assert caught.value.temporary is temporary


def nothing() -> Script:
    return answering()


async def test_an_api_server_out_of_reach_or_of_another_ca_is_named(before: Before) -> None:
    async with before(nothing(), PoolLimits(sweep=0.05)) as world:
        tls = world.pool.access.context()
        world.pool.access = FixedAccess(ApiServer("127.0.0.1", 1, "127.0.0.1"), tls, b"t")
        with pytest.raises(ClusterIdError, match=r"127\.0\.0\.1:1: cannot reach") as caught:
            await cluster_id(world.pool)
        assert caught.value.temporary
        here = ApiServer("127.0.0.1", world.server.port, "127.0.0.1")
        world.pool.access = FixedAccess(here, verifying_context(Authority("other").pem), b"t")
        with pytest.raises(ClusterIdError, match="check the CA") as caught:
            await cluster_id(world.pool)
        assert not caught.value.temporary


def test_what_was_answered_is_in_no_repr() -> None:
    """The agent's key comes in an answer (its Secret), and so do tokens of managed service accounts."""
    assert repr(Reply(200, b"planted")) == "Reply(status=200)"
