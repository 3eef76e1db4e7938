"""A cluster's heartbeat as a Lease of coordination.k8s.io/v1: where it is, what is in it, and what an observer makes of
it who does not have the cluster's agents.

Its annotations say what the agents say. It bears a label of its own, so that whoever lists the Leases by which replicas
agree does not read one for each cluster. Source: kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from gateway.hub.memory import Delta
from gateway.hub.source import Object, Source
from gateway.membership.heartbeats import Pulse, Renewal
from gateway.membership.inventory import Inventory

LEASES: Final = "/apis/coordination.k8s.io/v1"
LABEL: Final = "kulvert.dev/heartbeats"
"""Its value is the installation's name."""
CLUSTER: Final = "kulvert.dev/cluster"
MANAGER: Final = "kulvert"
OCM_NAME: Final = "managed-cluster-lease"
"""In the namespace that OCM makes for a cluster, of the cluster's name."""
_AGENTS: Final = "kulvert.dev/agents"
_READY: Final = "kulvert.dev/ready-agents"
_MESSAGE: Final = "kulvert.dev/message"
_INVENTORY: Final = "kulvert.dev/inventory"
MAX_MESSAGE: Final = 512
_MOST: Final = 100_000


def own_place(namespace: str, cluster: str) -> tuple[str, str]:
    """(namespace, name) in the installation's namespace."""
    return namespace, f"kulvert-cluster-{cluster}"


def ocm_place(cluster: str) -> tuple[str, str]:
    """(namespace, name) where OCM has it."""
    return cluster, OCM_NAME


def lease_path(place: tuple[str, str]) -> str:
    """Where a Lease is."""
    return f"{LEASES}/namespaces/{quote(place[0], safe='')}/leases/{quote(place[1], safe='')}"


def source(installation: str, namespace: str = "") -> Source:
    """All of an installation's; with OCM they are in many namespaces."""
    path = f"{LEASES}/namespaces/{quote(namespace, safe='')}/leases" if namespace else f"{LEASES}/leases"
    return Source(path, label_selector=f"{LABEL}={installation}")


def document(
    place: tuple[str, str], cluster: str, installation: str, holder: str, pulse: Pulse, duration: int
) -> dict[str, Any]:
    """For server-side apply. It was renewed when the last heartbeat came, not when this is written."""
    renewed = datetime.fromtimestamp(pulse.heard, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    notes = {_AGENTS: str(pulse.agents), _READY: str(pulse.ready), _MESSAGE: pulse.message[:MAX_MESSAGE]}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": place[1],
            "namespace": place[0],
            "labels": {"app.kubernetes.io/managed-by": MANAGER, LABEL: installation, CLUSTER: cluster},
            "annotations": notes | {_INVENTORY: pulse.inventory.text()},
        },
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": duration, "renewTime": renewed},
    }


@dataclass(frozen=True, slots=True)
class HeartbeatLease:
    """One, as it is read. `renewed` is the holder's own time, and compared with nothing but itself."""

    cluster: str
    renewed: str
    duration: float
    pulse: Pulse


def heartbeat_lease(found: Object) -> HeartbeatLease | None:
    """For the informer: None for one that names no cluster, or another one's of the same labels."""
    metadata, spec = found["metadata"], found.get("spec")
    labels, notes = _texts(metadata.get("labels")), _texts(metadata.get("annotations"))
    cluster = labels.get(CLUSTER, "")
    place = (metadata.get("namespace"), metadata["name"])
    if (
        not cluster
        or not isinstance(spec, dict)
        or place not in (ocm_place(cluster), own_place(str(place[0]), cluster))
    ):
        return None
    duration = spec.get("leaseDurationSeconds")
    duration = duration if isinstance(duration, int) and 1 <= duration <= 3600 else 60
    agents, ready = _count(notes.get(_AGENTS)), _count(notes.get(_READY))
    inventory = Inventory.read(notes.get(_INVENTORY, ""))
    pulse = Pulse(agents, min(agents, ready), notes.get(_MESSAGE, "")[:MAX_MESSAGE], inventory, 0.0)
    return HeartbeatLease(cluster, str(spec.get("renewTime", "")), float(duration), pulse)


GONE: Final = Pulse(0, 0, "", Inventory(), 0.0)


class HeartbeatObserver:
    """Leases as they change before the observer's eyes, by his own clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, Renewal] = {}
        self._keys: dict[str, str] = {}
        self._began: float | None = None

    def hear(self, deltas: Sequence[Delta[HeartbeatLease]]) -> None:
        """The informer's subscriber. What is there at first was renewed nobody knows when."""
        now, fresh = self._clock(), self._began is not None
        self._began = now if self._began is None else self._began
        for delta in deltas:
            if delta.after is not None:
                self._changed(delta.key, delta.before, delta.after, now, fresh)
            elif delta.before is not None and self._keys.get(delta.before.cluster) == delta.key:
                del self._known[delta.before.cluster], self._keys[delta.before.cluster]

    def _changed(self, key: str, before: HeartbeatLease | None, after: HeartbeatLease, now: float, fresh: bool) -> None:
        """A change of anything but the renewal is no heartbeat."""
        known = self._known.get(after.cluster)
        if before is not None and known is not None and before.renewed == after.renewed:
            now, fresh = known.seen, known.fresh
        self._keys[after.cluster] = key
        self._known[after.cluster] = Renewal(after.pulse, after.duration, now, fresh)

    def renewal(self, cluster: str) -> Renewal:
        """What is known of one. Without a Lease no agent is attached anywhere; before the first look nobody knows."""
        found = self._known.get(cluster)
        if found is not None:
            return found
        return Renewal(GONE, 60.0, self._clock()) if self._began is not None else _UNREAD


_UNREAD: Final = Renewal(Pulse(1, 0, "", Inventory(), 0.0), 60.0, float("inf"), fresh=False)


def _texts(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str)}


def _count(text: str | None) -> int:
    return min(int(text), _MOST) if text and text.isascii() and text.isdigit() and len(text) < 8 else 0
