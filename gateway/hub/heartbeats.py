"""Renews the heartbeat Leases of the clusters whose agents are here: each at most once in 30 s, however many agents it
has, and only after a heartbeat that came through the tunnel. That the last agent has gone, that the first is there, or
that the API server is lost or found, is written at once: two such writes beyond the regular one may follow each other,
and in the long run there is one write in 30 s. Bad news leave enough of that for the good ones that may follow, so that
an agent that restarts now and then is missed for no longer than it is away. News that the hub did not take are tried
again soon, out of that same allowance. None of it is on a user's request's path.

The writes are server-side applies: one question each, which makes the Lease where there is none and conflicts with
nobody. A cluster waits once at most, and what is written is the newest; so nothing grows while the hub is away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.hub.heartbeatlease import MANAGER, document, lease_path, ocm_place, own_place
from gateway.hub.objects import APPLY, HubObjects, HubUnavailable
from gateway.hub.paced import Paced
from gateway.membership.heartbeats import Heartbeats, Pulse
from gateway.membership.inventory import NOTHING
from gateway.membership.registry import Change, Cluster

OCM: Final = "/apis/work.open-cluster-management.io"
"""An API that a hub has where OCM is installed."""
SOON: Final = 1.0
"""Seconds, by chance up to twice that, after which news that could not be written are tried again."""
_NEVER: Final = float("-inf")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """`namespace` and `installation` are the server's own, `identity` this replica's. `every` is seconds between two
    writes for one cluster, by chance up to a fifth more, unless there is news; `rate` writes a second for all of them.
    With more clusters than `every` × `rate` each waits a little longer, which its Lease's grace (5 × 60 s) covers up to
    15,000.
    """

    namespace: str
    installation: str
    identity: str
    every: float = 30.0
    rate: float = 50.0
    place: float = 600.0
    """Seconds after which it is looked again whether OCM has a namespace for a cluster."""


@dataclass(slots=True)
class _Written:
    """Of one cluster: when the last write began, until when all writes are paid for at one in `every` seconds, when its
    agents were heard last, whether they are gone since, whether one of them reaches its API server (None: the Lease may
    say either), where its Lease is, and when that was looked up.
    """

    at: float
    paid: float
    heard: float
    gone: bool
    available: bool | None
    place: tuple[str, str]
    looked: float


class HeartbeatLeases:
    """`mine`: this replica has the cluster, now. `registered`: there is such a cluster. `duration` is how long its
    heartbeat counts, in seconds. `leading`: this replica deletes the Leases of clusters that are removed.
    """

    def __init__(
        self,
        hub: HubObjects,
        heartbeats: Heartbeats,
        settings: HeartbeatSettings,
        mine: Callable[[str], bool],
        registered: Callable[[str], bool],
        duration: Callable[[str], int],
        leading: Callable[[], bool],
        clock: Callable[[], float],
        randomness: Callable[[], float],
    ) -> None:
        self._hub = hub
        self._heartbeats = heartbeats
        self._settings = settings
        self._mine = mine
        self._registered = registered
        self._duration = duration
        self._leading = leading
        self._clock = clock
        self._randomness = randomness
        self._written: dict[str, _Written] = {}
        self._ocm: bool | None = None
        self._said = ""
        self.paced = Paced(self._work, clock, settings.rate)

    def heard(self, cluster: str) -> None:
        """The subscriber of `gateway.membership.heartbeats.Heartbeats`. News go before what is merely due, since they
        could have been written long ago.
        """
        now = due = self._clock()
        if (last := self._written.get(cluster)) is not None:
            every, pulse = self._settings.every, self._heartbeats.pulse(cluster)
            due = last.at + every * (1 + self._randomness() / 5)
            if (available := _available(pulse)) is not last.available:
                due = min(due, last.paid - every * (2 if available else 1))
        self.paced.ask(cluster, due - now)

    def changed(self, change: Change, cluster: Cluster) -> None:
        """The registry's subscriber: the Lease of a cluster that is removed goes."""
        if change is Change.REMOVED:
            self.paced.ask(cluster.name)

    async def run(self) -> None:
        """Until cancelled."""
        await self.paced.run()

    async def _work(self, cluster: str) -> None:
        try:
            if not self._registered(cluster):
                await self._remove(cluster)
            elif self._mine(cluster):
                await self._renew(cluster)
            else:
                self._written.pop(cluster, None)
            self._said = ""
        except HubUnavailable as error:
            if str(error) != self._said:
                _log.warning("a cluster's heartbeat cannot be written", extra={"cluster": cluster, "error": str(error)})
            self._said = str(error)
            self.paced.ask(cluster, self._pause(cluster))

    def _pause(self, cluster: str) -> float:
        """Seconds until what failed is tried again. Nobody may be heard of meanwhile, least of all an agent that is
        gone; bad news take the allowance here that they leave else.
        """
        every, chance = self._settings.every, self._randomness()
        written, regular = self._written.get(cluster), every * (1 + chance / 5)
        if written is None or _available(self._heartbeats.pulse(cluster)) is written.available:
            return regular
        return min(regular, max(SOON * (1 + chance), written.paid - 2 * every - self._clock()))

    async def _renew(self, cluster: str) -> None:
        """Raises HubUnavailable."""
        last = self._written.get(cluster)
        pulse = self._heartbeats.pulse(cluster)
        if pulse is None:
            if last is None or last.gone:
                return
            pulse = Pulse(0, 0, "", NOTHING, last.heard)
        written = self._written[cluster] = self._begun(last, pulse)
        try:
            await self._write(cluster, written, pulse)
        except HubUnavailable:
            written.gone = False  # that was not told, or one does not know
            if last is None or last.available is not written.available:
                written.available = None
            raise

    async def _write(self, cluster: str, written: _Written, pulse: Pulse) -> None:
        """Raises HubUnavailable."""
        await self._look_up(cluster, written)
        written.at, place = self._clock(), written.place
        settings = self._settings
        body = document(place, cluster, settings.installation, settings.identity, pulse, self._duration(cluster))
        path = f"{lease_path(place)}?fieldManager={MANAGER}&force=true"
        answer = await self._hub.ask("PATCH", path, body, APPLY)
        if answer.status not in (200, 201):
            written.looked = _NEVER
            raise answer.refused(f"the heartbeat of {cluster}")

    def _begun(self, last: _Written | None, pulse: Pulse) -> _Written:
        now = self._clock()
        paid = max(last.paid, now) if last is not None else now
        place, looked = (last.place, last.looked) if last is not None else (("", ""), _NEVER)
        every = self._settings.every
        return _Written(now, paid + every, pulse.heard, not pulse.agents, _available(pulse), place, looked)

    async def _look_up(self, cluster: str, written: _Written) -> None:
        """Where its Lease is. Raises HubUnavailable."""
        if self._ocm is None:
            self._ocm = await has_ocm(self._hub)
        if self._clock() < written.looked + self._settings.place:
            return
        theirs = self._ocm and await _is_there(self._hub, lease_path(ocm_place(cluster)))
        written.place = ocm_place(cluster) if theirs else own_place(self._settings.namespace, cluster)
        written.looked = self._clock()

    async def _remove(self, cluster: str) -> None:
        """Raises HubUnavailable. OCM's goes with its namespace."""
        self._written.pop(cluster, None)
        if not self._leading():
            return
        path = lease_path(own_place(self._settings.namespace, cluster))
        answer = await self._hub.ask("DELETE", path)
        if answer.status not in (200, 202, 404):
            raise answer.refused(f"the heartbeat of {cluster}, which is removed")


def _available(pulse: Pulse | None) -> bool:
    """What the leader makes of it (`gateway.membership.conditions.availability`)."""
    return pulse is not None and pulse.ready > 0


async def has_ocm(hub: HubObjects) -> bool:
    """Whether Open Cluster Management is installed there: heartbeats are in clusters' namespaces then. Raises
    HubUnavailable.
    """
    return await _is_there(hub, OCM)


async def _is_there(hub: HubObjects, path: str) -> bool:
    """What we may not see is not there for us. Raises HubUnavailable."""
    answer = await hub.ask("GET", path)
    if answer.status not in (200, 403, 404):
        raise answer.refused(f"GET {path}")
    return answer.status == 200
