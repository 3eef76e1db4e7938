"""Does what `gateway.hub.registration` decides: by the one replica that leads, a step for a name at a time.

Each write to the hub is of the version that was decided on; what comes back of it is the next thing that is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from gateway.database import RegistryError
from gateway.hub import clusters as objects
from gateway.hub.clusters import Declared
from gateway.hub.memory import Delta
from gateway.hub.objects import JSON, MERGE, HubObjects, HubUnavailable
from gateway.hub.paced import LOOKS, Paced, Slots
from gateway.hub.registration import AT_THE_HUB, Do, Known, Step, next_step, problem
from gateway.membership import changes
from gateway.membership.enrolments import Choice
from gateway.membership.registry import Change, Cluster
from gateway.membership.stores import Stores

LOOK: Final = 2.0
"""Seconds between looks at those that wait for something which tells nobody."""
ECHO: Final = 5.0
"""Seconds for the hub's own word about what was written there."""
RATE: Final = 20.0
"""Writes to the hub in a second."""
BY: Final = "hub (the ManagedCluster was deleted)"
_PAUSE: Final = (5.0, 120.0)
_STEPS: Final = 10
"""More steps in a row than any state needs: a bug, which must not keep the others waiting."""
_log = logging.getLogger(__name__)


class RegistrationKeeper:
    """`items` are the informer's, and count once it is `synced`. `said` is told where there is news of a name's
    `problem`. `run` is its life.
    """

    def __init__(
        self,
        hub: HubObjects,
        items: Callable[[], Mapping[str, Declared]],
        synced: Callable[[], bool],
        stores: Stores,
        leading: Callable[[], bool],
        clock: Callable[[], float],
        wall: Callable[[], float],
        said: Callable[[str], None] = lambda _name: None,
        look: float = LOOK,
    ) -> None:
        self._hub = hub
        self._items = items
        self._synced = synced
        self._stores = stores
        self._leading = leading
        self._clock = clock
        self._wall = wall
        self._said = said
        self._look = look
        self._began = False
        self._not_before: dict[str, float] = {}
        self._failed: dict[str, int] = {}
        self._problems: dict[str, str] = {}
        self._hub_said = ""
        self._slots = Slots(RATE)
        self.paced = Paced(self._work, clock, LOOKS)

    # --- what is asked of it

    def hear(self, deltas: Sequence[Delta[Declared]]) -> None:
        """The informer's subscriber."""
        for delta in deltas:
            self._not_before.pop(delta.key, None)
            self.paced.ask(delta.key)

    def changed(self, _change: Change, cluster: Cluster) -> None:
        """The registry's subscriber."""
        self.paced.ask(cluster.name)

    def keeps(self, name: str) -> bool:
        """Whether the hub has perhaps still to hear that a cluster was removed (`gateway.membership.lifecycle`)."""
        return not self._synced() or name in self._items()

    def problem(self, name: str) -> str:
        """What keeps it from being accepted, or an empty text."""
        return self._problems.get(name, "")

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.paced.run(), name="registration: steps")
            while True:
                self.look()
                await asyncio.sleep(self._look)

    def look(self) -> None:
        """Asks for all names when it begins to lead, and then for those that wait."""
        if not (self._leading() and self._synced()):
            self._began = False
            return
        for name in self._waiting() if self._began else self._all():
            self.paced.ask(name)
        self._began = True

    def _all(self) -> set[str]:
        return {*self._items(), *(cluster.name for cluster in self._stores.registry.list())}

    def _waiting(self) -> Iterable[str]:
        """Those who ask tell nobody, nor does a removal that ends."""
        asking = [name for name in self._stores.enrolments.asking() if name in self._items()]
        return {*asking, *(one.cluster for one in self._stores.removals.unfinished()), *self._problems}

    # --- steps

    async def _work(self, name: str) -> None:
        if not (self._leading() and self._synced()) or self._waits(name):
            return
        try:
            await self._steps(name)
            self._failed.pop(name, None)
        except (HubUnavailable, RegistryError) as error:
            if isinstance(error, RegistryError):
                self._tell(name, str(error), warn=True)
            elif str(error) != self._hub_said:  # once, and not for each of very many
                self._hub_said = str(error)
                _log.warning("ManagedClusters cannot be kept", extra={"cluster": name, "error": str(error)})
            count = self._failed[name] = self._failed.get(name, -1) + 1
            self._wait(name, min(_PAUSE[1], _PAUSE[0] * 2 ** min(count, 10)))

    def _waits(self, name: str) -> bool:
        """Whether something failed a moment ago, or the hub has not said yet what became of what was written there:
        that is not decided about by what was there before.
        """
        left = self._not_before.get(name, float("-inf")) - self._clock()
        if left > 0:
            self.paced.ask(name, left)
            return True
        self._not_before.pop(name, None)
        return False

    def _wait(self, name: str, seconds: float) -> None:
        self._not_before[name] = self._clock() + seconds
        self.paced.ask(name, seconds)

    async def _steps(self, name: str) -> None:
        """Raises HubUnavailable, RegistryError."""
        for _ in range(_STEPS):
            found, known = self._items().get(name), self._known(name)
            step = next_step(found, known)
            if step is None:
                self._tell(name, problem(found, known) if found is not None else "")
                return
            _log.info("a ManagedCluster and the registry", extra={"cluster": name, "step": step.do.value})
            if step.do in AT_THE_HUB:
                await self._write(name, found, known, step)
                return
            assert found is not None
            if step.do is Do.REMOVE and await self._kind_goes():
                await self._write(name, found, known, Step(Do.RELEASE))
                return
            self._register(found, step)
        raise AssertionError(f"no end of steps for {name}")

    def _known(self, name: str) -> Known:
        stores = self._stores
        known = Known(stores.registry.get(name), stores.removals.get(name))
        if known.cluster is None or known.accepted:
            return known
        asking = {one.cluster_id for one in stores.enrolments.of(name) if one.choice is not Choice.DENIED}
        return replace(known, asking=tuple(sorted(asking)))

    def _register(self, found: Declared, step: Step) -> None:
        """Raises RegistryError."""
        stores, name, now = self._stores, found.name, self._wall()
        if step.do is Do.REGISTER:
            stores.registry.add(Cluster(name, None, now, found.labels))
        elif step.do is Do.RELABEL:
            stores.registry.relabel(name, found.labels)
        elif step.do is Do.ACCEPT:
            changes.accept(stores, name, step.uid, now)
        elif step.do is Do.NOTE:
            stores.registry.hub_has_accepted(name, step.uid)
        elif step.do is Do.REMOVE:
            changes.remove(stores, name, BY, found.forced, now)
        else:
            stores.registry.deny(name, step.do is Do.DENY)

    async def _write(self, name: str, found: Declared | None, known: Known, step: Step) -> None:
        """Raises HubUnavailable."""
        if left := self._slots.wait(name, self._clock()):
            self.paced.ask(name, left)
            return
        method, path, body = self._question(name, found, known, step)
        self._wait(name, ECHO)  # from before its echo can come
        answer = await self._hub.ask(method, path, body, MERGE if method == "PATCH" else JSON)
        if answer.status not in (200, 201, 202, 404, 409):
            raise answer.refused(f"{step.do.value} ({name})")
        if answer.status == 404 and step.do is Do.CREATE:
            raise answer.refused("ManagedClusters are unknown to the hub: apply charts/crds-without-ocm")

    def _question(
        self, name: str, found: Declared | None, known: Known, step: Step
    ) -> tuple[str, str, Mapping[str, Any]]:
        labels = known.cluster.labels if known.cluster is not None else ()
        if found is None:
            return "POST", objects.PATH, objects.new(name, labels, step.uid, self._wall())
        path = objects.path_of(name)
        if step.do is Do.DELETE:
            return "DELETE", path, objects.deletion(found)
        if step.do is Do.RELEASE:
            return "PATCH", path, objects.released(found)
        if step.do is Do.HOLD:
            return "PATCH", path, objects.holding(found, labels, self._wall())
        return "PATCH", path, objects.accepting(found, step.uid, step.do is Do.OPEN)

    async def _kind_goes(self) -> bool:
        """Whether ManagedClusters as such are being taken away (kubectl delete crd): that removes no cluster.

        Raises HubUnavailable, also where that cannot be known.
        """
        answer = await self._hub.ask("GET", objects.CRD)
        if answer.status not in (200, 404):
            raise answer.refused("whether the CRD of ManagedClusters is being deleted")
        metadata = answer.body.get("metadata")
        goes = answer.status == 404 or (isinstance(metadata, dict) and bool(metadata.get("deletionTimestamp")))
        if goes:
            _log.warning(
                "the CRD of ManagedClusters is being deleted: the objects go, and no cluster is removed for it"
            )
        return goes

    # --- what is told

    def _tell(self, name: str, text: str, *, warn: bool = False) -> None:
        """Once, until there is other news."""
        if text == self._problems.get(name, ""):
            return
        if text:
            self._problems[name] = text
        else:
            del self._problems[name]
        if warn:
            _log.warning("a ManagedCluster and the registry are not alike", extra={"cluster": name, "error": text})
        self._said(name)
