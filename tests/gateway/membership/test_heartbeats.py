"""What agents say of their clusters: strictly read, of their own cluster alone, and forgotten when they go."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.heartbeat import METHOD
from gateway.membership.heartbeats import HEARTBEAT, BadHeartbeat, Beat, Heartbeats, Pulse
from gateway.membership.inventory import Inventory
from stub.session import AgentInfo
from tests.agent.test_status import STATUS
from tunnel.calls import CallFailed

GOOD: dict[str, Any] = {"status": STATUS.params()}


def agent(instance: str = "i1", cluster: str = "edge") -> AgentInfo:
    return AgentInfo(cluster, "u1", f"agent-{instance}", instance, "kulvert/2", "1.2.3.4:5")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good one, with one field another."""
    made = copy.deepcopy(GOOD)
    *parts, last = path.split(".")
    place = made
    for part in parts:
        place = place[part]
    place[last] = value
    return made


def test_what_agents_send_is_what_is_read() -> None:
    assert HEARTBEAT == METHOD
    beat = Beat.of(GOOD)
    assert (beat.ready, beat.round_trip_ms, beat.carriage) == (True, 4, "websocket")
    assert beat.inventory == Inventory("v1.36.0", "kind", 3, 2, (("cpu", "12"),), (("cpu", "11"),))
    bare = {key: GOOD["status"][key] for key in ("agent", "apiServer")}
    assert Beat.of({"status": bare}).inventory == Inventory()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("status", None), ("status", []), ("status.agent", 3), ("status.apiServer", None),
        ("status.apiServer.ready", 1), ("status.apiServer.ready", "true"), ("status.apiServer.roundTripMs", -1),
        ("status.apiServer.roundTripMs", True), ("status.apiServer.roundTripMs", 1.5),
        ("status.apiServer.roundTripMs", 10**30), ("status.apiServer.message", "a\nb"),
        ("status.apiServer.message", "x" * 513), ("status.agent.name", "x" * 254), ("status.agent.software", "\x1b[0m"),
        ("status.agent.carriage", None), ("status.kubernetes", "v" * 65), ("status.kubernetes", "v1\n"),
        ("status.kubernetes", 3), ("status.provider", "two words"), ("status.provider", "x" * 33),
        ("status.provider", "aws\n"), ("status.nodes", []), ("status.nodes.count", -1), ("status.nodes.count", True),
        ("status.nodes.count", 10**9), ("status.nodes.ready", "3"), ("status.capacity", []),
        ("status.capacity", {"gpu": "1"}), ("status.capacity", {"cpu": 4}), ("status.capacity", {"cpu": "4\n"}),
        ("status.allocatable", {"memory": "9" * 40}), ("status.allocatable", {"memory": "1Gi; drop"}),
    ],
)  # fmt: skip
async def test_what_is_malformed_or_too_long_is_refused_and_changes_nothing(path: str, value: Any) -> None:
    heartbeats = Heartbeats(lambda: 5.0)
    method = heartbeats.methods(agent())[HEARTBEAT]
    with pytest.raises(CallFailed) as caught:
        await method(changed(path, value))
    assert caught.value.reason == "heartbeat"
    assert heartbeats.pulse("edge") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PATHS = ["status", "status.agent", "status.apiServer", "status.nodes", "status.capacity", "status.provider"]


@given(st.sampled_from(PATHS), json_values)
def test_no_value_whatever_is_more_than_refused(path: str, value: Any) -> None:
    with suppress(BadHeartbeat):
        beat = Beat.of(changed(path, value))
        assert Inventory.read(beat.inventory.text()) == beat.inventory


async def test_it_counts_for_the_sessions_cluster_whatever_it_says() -> None:
    heartbeats = Heartbeats(lambda: 5.0)
    lying = changed("status.agent", {"name": "other", "software": "x", "carriage": "websocket", "cluster": "prod"})
    await heartbeats.methods(agent())[HEARTBEAT]({**lying, "cluster": "prod"})
    assert heartbeats.pulse("prod") is None
    (beat,) = heartbeats.of("edge")
    assert (beat.agent, beat.software) == ("agent-i1", "kulvert/2")


def test_what_all_agents_say_is_one_and_the_last_that_goes_is_told() -> None:
    now = [5.0]
    told: list[str] = []
    heartbeats = Heartbeats(lambda: now[0])
    heartbeats.subscribe(told.append)
    heartbeats.heard(agent("i1"), Beat.of(GOOD))
    now[0] = 6.0
    heartbeats.heard(
        agent("i2"), Beat.of(changed("status.apiServer", {"ready": False, "message": "down", "roundTripMs": 1}))
    )
    pulse = heartbeats.pulse("edge")
    assert pulse is not None
    assert (pulse.agents, pulse.ready, pulse.message, pulse.heard) == (2, 1, "down", 6.0)
    assert pulse.inventory.nodes == 3
    heartbeats.attached("edge", ["i2"])
    assert [beat.agent for beat in heartbeats.of("edge")] == ["agent-i2"]
    heartbeats.attached("edge", [])
    assert heartbeats.pulse("edge") is None
    assert told == ["edge", "edge", "edge"]
    heartbeats.attached("other", [])


def test_the_healthy_ones_nodes_count() -> None:
    blind = Beat.of({"status": {key: GOOD["status"][key] for key in ("agent", "apiServer", "kubernetes")}})
    assert Pulse.of([blind, Beat.of(GOOD)], 1.0).inventory.nodes == 3


@pytest.mark.parametrize("text", ["", "x", "[]", "3", '{"nodes": 3}', '{"version": 3}', '{"capacity": 3}'])
def test_an_inventory_that_cannot_be_read_is_none(text: str) -> None:
    assert not Inventory.read(text).known
    assert Inventory().text() == ""
