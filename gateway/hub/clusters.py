"""ManagedClusters of the hub: what is read of each, small and typed, and the bodies of what is written to one.

Whoever may write them decides which clusters there are, and, by their labels, which grants reach them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from gateway.hub.managedstatus import NOTHING, Told
from gateway.hub.source import Object, Source

GROUP: Final = "cluster.open-cluster-management.io"
VERSION: Final = f"{GROUP}/v1"
KIND: Final = "ManagedCluster"
PATH: Final = f"/apis/{GROUP}/v1/managedclusters"
SOURCE: Final = Source(PATH)
CRD: Final = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/managedclusters.{GROUP}"
FINALIZER: Final = "kulvert.dev/removal"
"""The object stays until the cluster is removed in order."""
JOIN: Final = "kulvert.dev/join-kubeconfig-secret"
"""The annotation: NAMESPACE/NAME of a Secret whose key `kubeconfig` leads to the cluster."""
CLUSTER_ID: Final = "kulvert.dev/cluster-id"
"""The annotation by which an administrator chooses who is accepted."""
ACCEPTED: Final = "kulvert.dev/accepted"
"""The annotation: the cluster id whose acceptance both sides know of. The server's own."""
SINCE: Final = "kulvert.dev/since"
"""The annotation: when the server took the object up, epoch seconds by its own clock."""
FORCE: Final = "kulvert.dev/force-removal"
"""The annotation: "true" removes a cluster that cannot be reached, as `kulvert cluster remove --force`."""
EVENTS: Final = "/api/v1/namespaces/default/events"
"""Of what is in no namespace."""
MAX_LABELS: Final = 64
LEASE: Final = 60


@dataclass(frozen=True, slots=True)
class Declared:
    """One of them. `secret`, `wanted` and `accepted` are annotations' texts, or empty; `held`: it has our finalizer."""

    name: str
    uid: str = ""
    version: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    accepts: bool = False
    secret: str = ""
    wanted: str = ""
    accepted: str = ""
    since: float = 0.0
    forced: bool = False
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    lease: int = LEASE
    told: Told = NOTHING

    @property
    def held(self) -> bool:
        """Whether the server has taken it up."""
        return FINALIZER in self.finalizers


def declared(document: Object) -> Declared:
    """For the informer. What is of an odd shape counts as not there. Raises KeyError where there is no metadata."""
    metadata = document["metadata"]
    spec = document.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    annotations, duration = _texts(metadata.get("annotations")), spec.get("leaseDurationSeconds")
    finalizers = metadata.get("finalizers")
    return Declared(
        name=metadata["name"],
        uid=str(metadata.get("uid", "")),
        version=str(metadata.get("resourceVersion", "")),
        labels=tuple(sorted(_texts(metadata.get("labels")).items())[:MAX_LABELS]),
        accepts=spec.get("hubAcceptsClient") is True,
        secret=annotations.get(JOIN, ""),
        wanted=annotations.get(CLUSTER_ID, ""),
        accepted=annotations.get(ACCEPTED, ""),
        since=_number(annotations.get(SINCE, "")),
        forced=annotations.get(FORCE) == "true",
        deleting=bool(metadata.get("deletionTimestamp")),
        finalizers=tuple(one for one in finalizers if isinstance(one, str)) if isinstance(finalizers, list) else (),
        lease=duration if isinstance(duration, int) and 1 <= duration <= 3600 else LEASE,
        told=Told.read(document),
    )


def path_of(name: str) -> str:
    """Where one is."""
    return f"{PATH}/{quote(name, safe='')}"


def status_path(name: str) -> str:
    """Where its status is written."""
    return f"{path_of(name)}/status"


# --- bodies


def new(name: str, labels: Iterable[tuple[str, str]], accepted: str, now: float) -> dict[str, Any]:
    """One that is to be made for a cluster that the server knows."""
    annotations = {SINCE: f"{now:.3f}"} | ({ACCEPTED: accepted} if accepted else {})
    metadata = {"name": name, "labels": dict(labels), "annotations": annotations, "finalizers": [FINALIZER]}
    return {"apiVersion": VERSION, "kind": KIND, "metadata": metadata, "spec": {"hubAcceptsClient": bool(accepted)}}


def holding(found: Declared, labels: Iterable[tuple[str, str]], now: float) -> dict[str, Any]:
    """A merge patch that takes it up; labels that it has already stay what they are."""
    more = {key: value for key, value in labels if key not in dict(found.labels)}
    metadata = {"finalizers": [*found.finalizers, FINALIZER], "annotations": {SINCE: f"{now:.3f}"}, "labels": more}
    return _patch(found, metadata)


def released(found: Declared) -> dict[str, Any]:
    """A merge patch that lets it go."""
    return _patch(found, {"finalizers": [one for one in found.finalizers if one != FINALIZER]})


def accepting(found: Declared, uid: str, opens: bool) -> dict[str, Any]:
    """A merge patch: this id is what both sides know (none: an empty text); `opens`: the hub accepts from now on."""
    annotations: dict[str, str | None] = {ACCEPTED: uid or None}
    if found.wanted and uid:
        annotations[CLUSTER_ID] = uid
    return _patch(found, {"annotations": annotations}) | ({"spec": {"hubAcceptsClient": True}} if opens else {})


def _patch(found: Declared, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Of this very version: what somebody else changed meanwhile is looked at first (409)."""
    return {"metadata": {"uid": found.uid, "resourceVersion": found.version, **metadata}}


def deletion(found: Declared) -> dict[str, Any]:
    """Options: this very object."""
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": found.uid}}


def event(found: Declared, kind: str, reason: str, message: str, now: float) -> dict[str, Any]:
    """An Event about it: `kind` is Normal or Warning."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{found.name}.", "namespace": "default"},
        "involvedObject": {"apiVersion": VERSION, "kind": KIND, "name": found.name, "uid": found.uid},
        "type": kind,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": "kulvert"},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str)}


def _number(text: str) -> float:
    try:
        return max(0.0, float(text)) if len(text) < 32 else 0.0
    except ValueError:
        return 0.0
