"""Keeps what is told of clusters in the status of their ManagedClusters: written where it has changed, and never often.

Others write there, too. So each write is made from what is there at that moment, and only replaces that (409: look
again); where somebody else says otherwise again and again, nobody fights him more than once in five minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.hub.clusters import KIND, VERSION, Declared, path_of, status_path
from gateway.hub.managedstatus import Told
from gateway.hub.memory import Delta
from gateway.hub.objects import HubObjects, HubUnavailable
from gateway.hub.paced import LOOKS, Paced, Slots
from gateway.membership.registry import Change, Cluster

TELL: Final = (5.0, 300.0)
"""Seconds between two writes of one status, and the most that they grow to where the same is told again."""
RATE: Final = 20.0
"""Statuses in a second; each costs a read and a write."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Last:
    """What was told last, when, and how long nothing is told after it."""

    told: Told
    at: float
    pause: float


class StatusKeeper:
    """`items` are the informer's; `wanted` is what is to be said of one, or None where that is not ours to say. Where
    `leading` says no, another replica does it.
    """

    def __init__(
        self,
        hub: HubObjects,
        items: Callable[[], Mapping[str, Declared]],
        wanted: Callable[[Declared], Told | None],
        leading: Callable[[], bool],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._hub = hub
        self._items = items
        self._wanted = wanted
        self._leading = leading
        self._clock = clock
        self._wall = wall
        self._last: dict[str, _Last] = {}
        self._slots = Slots(RATE)
        self.paced = Paced(self._work, clock, LOOKS)
        self._said = ""

    def hear(self, deltas: Sequence[Delta[Declared]]) -> None:
        """The informer's subscriber."""
        for delta in deltas:
            self.ask(delta.key)

    def changed(self, _change: Change, cluster: Cluster) -> None:
        """The registry's subscriber."""
        self.ask(cluster.name)

    def ask(self, name: str) -> None:
        """Something about it may have changed."""
        self.paced.ask(name)

    async def run(self) -> None:
        """Until cancelled."""
        await self.paced.run()

    async def _work(self, name: str) -> None:
        found = self._items().get(name)
        wanted = self._wanted(found) if found is not None and self._leading() else None
        if found is None or wanted is None:
            self._last.pop(name, None)
            return
        if wanted.is_in(found.told):
            return
        last, now = self._last.get(name), self._clock()
        if last is not None and now < last.at + last.pause:
            self.paced.ask(name, last.at + last.pause - now)
            return
        if left := self._slots.wait(name, now):
            self.paced.ask(name, left)
            return
        again = last is not None and last.told == wanted
        pause = min(TELL[1], 2 * last.pause) if last is not None and again else TELL[0]
        self._last[name] = _Last(wanted, now, pause)
        try:
            await self._tell(name, found, wanted)
        except HubUnavailable as error:
            self._failed(name, str(error), pause)

    async def _tell(self, name: str, found: Declared, wanted: Told) -> None:
        """Raises HubUnavailable."""
        document = await self._hub.get(path_of(name))
        if document is None or document["metadata"].get("uid") != found.uid:
            return
        news = wanted.merged(document, self._wall())
        if news is None:
            return
        answer = await self._hub.ask("PUT", status_path(name), {**news, "apiVersion": VERSION, "kind": KIND})
        if answer.status == 409:
            self.paced.ask(name, TELL[0])
        elif answer.status not in (200, 404):
            raise answer.refused(f"the status of ManagedCluster {name}")

    def _failed(self, name: str, why: str, pause: float) -> None:
        if why != self._said:
            _log.warning("the status of a ManagedCluster cannot be written", extra={"cluster": name, "error": why})
        self._said = why
        self.paced.ask(name, pause)
