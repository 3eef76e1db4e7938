"""The label on this replica's own pod: set, taken away, tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.hub.objects import Answer, HubUnavailable
from gateway.replicas import podlabel
from gateway.replicas.podlabel import LABEL, PodLabel
from tests.support.attached import eventually


class Hub:
    """What was asked of it; answers by `statuses`, or is not there (0)."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.asked: list[tuple[str, str, Any]] = []

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = "") -> Answer:
        self.asked.append((method, path, body))
        status = self.statuses.pop(0) if self.statuses else 200
        if not status:
            raise HubUnavailable("the hub does not answer")
        return Answer(status, {})


def label(value: str | None) -> dict[str, Any]:
    return {"metadata": {"labels": {LABEL: value}}}


async def test_the_label_says_whether_this_replica_takes_agents() -> None:
    hub, active = Hub(), True
    made = PodLabel(hub, "kulvert", "kulvert-7d-x", lambda: active)
    assert await made.tell()
    active = False
    assert await made.tell()
    path = "/api/v1/namespaces/kulvert/pods/kulvert-7d-x"
    assert hub.asked == [("PATCH", path, label("true")), ("PATCH", path, label(None))]


@pytest.mark.parametrize("status", [0, 403, 404])
async def test_what_cannot_be_written_is_said_and_tried_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podlabel, "RETRY", 0.01)
    hub = Hub(status)
    made = PodLabel(hub, "kulvert", "p", lambda: True)
    assert not await made.tell()
    assert made.problem
    task = asyncio.create_task(made.run())
    await eventually(lambda: made.problem is None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_change_is_written_at_once() -> None:
    hub, active = Hub(), False
    made = PodLabel(hub, "kulvert", "p", lambda: active)
    task = asyncio.create_task(made.run())
    await eventually(lambda: len(hub.asked) == 1)
    active = True
    made.look()
    await eventually(lambda: len(hub.asked) == 2)
    assert hub.asked[1][2] == label("true")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
