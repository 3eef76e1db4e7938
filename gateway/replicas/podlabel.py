"""The label `kulvert.dev/active` on this replica's own pod: it has agents' links, so that a Service may lead there.

In mode standby the agents' Service selects it, and a standby, which is Ready all the same, gets no agents: a rollout
that waits for readiness goes on, and no agent is turned away. Where the label is late or stale nothing is lost: a
standby sends agents on by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import quote

from gateway.hub.objects import MERGE, Answer, HubUnavailable

LABEL: Final = "kulvert.dev/active"
AGAIN: Final = 60.0
"""Seconds after which the label is written again, in case somebody took it away."""
RETRY: Final = 2.0
_log = logging.getLogger(__name__)


class Objects(Protocol):
    """gateway.hub.objects.HubObjects."""

    async def ask(self, method: str, path: str, body: dict[str, object], content: str) -> Answer: ...


class PodLabel:
    """`run` is its life; `look` is called where `active` may answer otherwise than before."""

    def __init__(self, objects: Objects, namespace: str, pod: str, active: Callable[[], bool]) -> None:
        self._objects = objects
        self._path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}"
        self._active = active
        self._changed = asyncio.Event()
        self.problem: str | None = None

    def look(self) -> None:
        """Something has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._changed.clear()
            told = await self.tell()
            try:
                async with asyncio.timeout(AGAIN if told else RETRY):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def tell(self) -> bool:
        """Write what is so now; whether that is done."""
        labels = {LABEL: "true" if self._active() else None}
        try:
            answer = await self._objects.ask("PATCH", self._path, {"metadata": {"labels": labels}}, MERGE)
        except HubUnavailable as error:
            return self._failed(str(error))
        if answer.status != 200:
            return self._failed(str(answer.refused("the label of this replica's pod")))
        self.problem = None
        return True

    def _failed(self, problem: str) -> bool:
        if problem != self.problem:
            _log.warning("this replica's pod cannot be labelled: %s", problem)
        self.problem = problem
        return False
