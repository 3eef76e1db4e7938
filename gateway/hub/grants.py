"""Grant objects of the hub (charts/crds) as a source of grants.

`spec.grantedBy` says who made one by delegation, which the hub's admission policy has checked; such a grant counts
only as far as its maker could make it here. An object that cannot be read is named, and counts as it was read last: the
first grant that matches decides as whom, so that without it the next one would, and make somebody else of the user.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from auth.grants.grant import Grant, Maker
from auth.grants.object import read_object, value_of
from auth.grants.sources import GrantSources
from auth.impersonation import HUB
from auth.yamlnodes import YamlError
from gateway.hub.informer import Delta, Informer
from gateway.hub.source import Object, Source

GRANTS: Final = Source("/apis/kulvert.dev/v1alpha1/grants")
SOURCE: Final = "hub"
PAUSE: Final = 0.05
"""Seconds between two merges: what changes at once is merged once."""
SHARE: Final = 9.0
"""A pause is so many times as long as the merge before it: ten thousand grants take a tenth of a second."""
_TOLD: Final = 3
_ACCOUNT: Final = "system:serviceaccount:"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrantRead:
    """What is kept of an object: its grant, or why there is none."""

    grant: Grant | None
    error: str = ""


class HubGrants:
    """Takes what an informer of `GRANTS` knows to the sources of grants. `run` is the life of both."""

    def __init__(
        self,
        sources: GrantSources,
        informer: Informer[GrantRead],
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`informer` has the view `read`. `clock` measures what a merge takes."""
        self.informer = informer
        self._sources = sources
        self._wall = wall
        self._clock = clock
        self._known: dict[str, Grant] = {}
        self._bad: dict[str, str] = {}
        self._told: str | None = None
        self._changed = asyncio.Event()
        informer.subscribe(self.hear)

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.informer.run(), name="read the hub's grants")
            group.create_task(self._merge_on(), name="merge the hub's grants")

    def hear(self, deltas: Sequence[Delta[GrantRead]]) -> None:
        """What has changed; it counts once it is merged."""
        for delta in deltas:
            self._bad.pop(delta.key, None)
            if delta.after is None:
                self._known.pop(delta.key, None)
            elif delta.after.grant is None:
                self._bad[delta.key] = delta.after.error
            else:
                self._known[delta.key] = delta.after.grant
        self._changed.set()

    def merge(self) -> None:
        """What was heard of counts: by priority, and among equals by name."""
        ordered = sorted((self._known[name] for name in sorted(self._known)), key=lambda grant: grant.priority)
        problem = self._problem()
        if problem is not None and problem != self._told:
            _log.error("grants of the hub cannot be read", extra={"problem": problem})
        self._told = problem
        self._sources.changed(SOURCE, ordered, self._wall(), problem)

    async def _merge_on(self) -> None:
        while True:
            await self._changed.wait()
            began = self._clock()
            self.merge()
            self._changed.clear()
            await asyncio.sleep(max(PAUSE, SHARE * (self._clock() - began)))

    def _problem(self) -> str | None:
        if not self._bad:
            return None
        told = "; ".join(self._bad[name] for name in sorted(self._bad)[:_TOLD])
        return f"not in force, or as it was before: {told}{' and others' if len(self._bad) > _TOLD else ''}"


def read(document: Object) -> GrantRead:
    """The view of a Grant object."""
    try:
        return GrantRead(grant_of(document))
    except YamlError as error:
        return GrantRead(None, str(error))


def grant_of(document: Object) -> Grant:
    """One object. :raises YamlError: it is not what the schema says."""
    spec = dict(document.get("spec") or {})
    by = spec.pop("grantedBy", None)
    name = (document.get("metadata") or {}).get("name", "")
    grant = read_object(value_of({**document, "spec": spec}, f"the hub's grant {name!r}")).grant
    return grant if by is None else replace(grant, maker=_maker(by, name))


def _maker(by: object, name: str) -> Maker:
    if isinstance(by, Mapping):
        user, groups = by.get("user"), by.get("groups", [])
        if isinstance(user, str) and user and isinstance(groups, list) and all(isinstance(g, str) for g in groups):
            return Maker(user, tuple(groups), HUB if user.startswith(_ACCOUNT) else "")
    raise YamlError(f"the hub's grant {name!r}: spec.grantedBy must be a user, and groups")
