"""What an agent reports: small, what is so, and news only where something is news."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.health import HealthReport
from agent.nodes import Nodes
from agent.status import AgentName, Status, StatusReader, StatusTiming
from tests.agent.apiserver import Client, Script
from tests.agent.conftest import Before
from tests.agent.test_nodes import node, serving

NAME = AgentName("agent-0", "kulvert/1.2.3")
READY = HealthReport(True, "", 4)
NODES = Nodes(3, 2, "kind", {"cpu": "12"}, {"cpu": "11"})
STATUS = Status(NAME, READY, "v1.36.0", NODES)
NOW = StatusTiming(version=0.0, nodes=0.0, retry=0.0, answer=2.0)


def test_it_is_small_and_says_what_is_so() -> None:
    assert STATUS.params() == {
        "agent": {"name": "agent-0", "software": "kulvert/1.2.3", "carriage": "websocket"},
        "apiServer": {"ready": True, "message": "", "roundTripMs": 4},
        "kubernetes": "v1.36.0",
        "provider": "kind",
        "nodes": {"count": 3, "ready": 2},
        "capacity": {"cpu": "12"},
        "allocatable": {"cpu": "11"},
    }
    longest = Status(AgentName("a" * 253, "s" * 253), HealthReport(False, "é" * 4096, 10**6), "v" * 64, NODES)
    assert len(json.dumps({"status": longest.params()})) < 4096
    hostile = replace(STATUS, health=HealthReport(False, "a\nb\x1b[0m", 1)).params()
    assert hostile["apiServer"]["message"].isprintable()
    assert "nodes" not in replace(STATUS, nodes=None).params()


@pytest.mark.parametrize(
    ("after", "news"),
    [
        (STATUS, False),
        (replace(STATUS, health=replace(READY, latency_ms=40)), False),
        (replace(STATUS, health=replace(READY, latency_ms=90)), True),
        (replace(STATUS, health=replace(READY, ready=False)), True),
        (replace(STATUS, nodes=replace(NODES, ready=3)), True),
        (replace(STATUS, nodes=None), True),
        (replace(STATUS, version="v1.37.0"), True),
    ],
)  # fmt: skip
def test_jitter_is_no_news(after: Status, news: bool) -> None:
    assert after.is_news_after(STATUS) is news


@given(st.integers(100, 10_000), st.integers(100, 10_000))
def test_round_trips_within_twice_each_other_are_the_same(first: int, second: int) -> None:
    one, two = (replace(STATUS, health=replace(READY, latency_ms=took)) for took in (first, second))
    assert one.is_news_after(two) == two.is_news_after(one) == (max(first, second) > 2 * min(first, second))


def answering(nodes: Script) -> Script:
    """/version, then nodes."""

    async def script(client: Client) -> None:
        await client.head()
        body = b'{"gitVersion": "v1.36.0"}'
        await client.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await nodes(client)

    return script


async def test_version_and_nodes_are_read_and_the_nodes_seldom(before: Before) -> None:
    asked: list[dict[str, str]] = []
    async with before(answering(serving([node()], asked))) as world:
        reader = StatusReader(NAME, world.pool, lambda: READY, StatusTiming())
        await reader.look()
        await reader.look()
        assert reader.status is not None
        assert (reader.status.version, reader.status.nodes and reader.status.nodes.count) == ("v1.36.0", 1)
        assert len(asked) == 1


async def test_before_the_first_probe_there_is_nothing_to_say(before: Before) -> None:
    async with before(answering(serving([], []))) as world:
        assert StatusReader(NAME, world.pool, lambda: None, NOW).status is None


async def test_who_may_not_list_nodes_says_so_once(before: Before, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(client: Client) -> None:
        while True:
            target = (await client.head()).split(b" ")[1]
            code = 403 if b"nodes" in target else 200
            await client.say(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n{}" % code)

    async with before(script) as world:
        reader = StatusReader(NAME, world.pool, lambda: READY, NOW)
        for _ in range(3):
            await reader.look()
        assert reader.status is not None
        assert reader.status.nodes is None
    assert capsys.readouterr().out.count("kulvert-agent-status") == 1


async def test_what_cannot_be_read_for_now_is_what_it_was(before: Before) -> None:
    answers = [b'{"gitVersion": "v1.36.0"}', json.dumps({"metadata": {}, "items": [node()]}).encode(), b"nonsense"]

    async def script(client: Client) -> None:
        while True:
            await client.head()
            body = answers.pop(0) if len(answers) > 1 else answers[0]
            await client.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    timing = StatusTiming(version=60.0, nodes=0.0, retry=0.0, answer=2.0)
    async with before(script) as world:
        reader = StatusReader(NAME, world.pool, lambda: READY, timing)
        await reader.look()
        reader._nodes_due = 0.0
        await reader.look()
        assert reader.status is not None
        assert reader.status.nodes is not None
