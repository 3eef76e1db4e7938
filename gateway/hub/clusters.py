"""ManagedClusters of the hub: what one asks for, and what is told of it there, by the names that OCM uses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from gateway.hub.watch import Object
from gateway.membership.conditions import AVAILABLE, FALSE, HUB_ACCEPTED, JOINED, TRUE, UNKNOWN, Condition
from gateway.membership.registry import Cluster

GROUP: Final = "cluster.open-cluster-management.io"
PATH: Final = f"/apis/{GROUP}/v1/managedclusters"
JOIN: Final = "kulvert.dev/join-kubeconfig-secret"
"""The annotation: NAMESPACE/NAME of a Secret whose key `kubeconfig` leads to the cluster."""
EVENTS: Final = "/api/v1/namespaces/default/events"
"""Of what is in no namespace."""
FAILED: Final = "JoinFailed"
_TYPES: Final = {
    HUB_ACCEPTED: "HubAcceptedManagedCluster",
    JOINED: "ManagedClusterJoined",
    AVAILABLE: "ManagedClusterConditionAvailable",
}


def secret_of(document: Object) -> str:
    """What its annotation says, or an empty text."""
    annotations = document["metadata"].get("annotations")
    found = annotations.get(JOIN) if isinstance(annotations, dict) else None
    return found if isinstance(found, str) else ""


def accepts(document: Object) -> bool:
    """Whether an administrator of the hub lets the cluster in."""
    spec = document.get("spec")
    return isinstance(spec, dict) and spec.get("hubAcceptsClient") is True


def status_path(name: str) -> str:
    """Where its status is written."""
    return f"{PATH}/{quote(name, safe='')}/status"


def told(document: Object, cluster: Cluster | None, failure: str, now: float) -> dict[str, Any] | None:
    """The object with its conditions as they are now, or None where they are so already. Others' stay."""
    status = document.get("status")
    status = status if isinstance(status, dict) else {}
    conditions = status.get("conditions")
    before = [one for one in conditions if isinstance(one, dict)] if isinstance(conditions, list) else []
    known = {one.get("type"): one for one in before}
    made = {one.type: one for one in _conditions(document, cluster, failure)}
    news = {kind: one for kind, one in made.items() if _differs(known.get(kind), one)}
    if not news:
        return None
    after = [_shown(news.pop(one["type"]), one, now) if one.get("type") in news else one for one in before]
    after += [_shown(one, None, now) for one in news.values()]
    kind = {"apiVersion": f"{GROUP}/v1", "kind": "ManagedCluster"}
    return {**document, **kind, "status": {**status, "conditions": after}}


def event(document: Object, kind: str, reason: str, message: str, now: float) -> dict[str, Any]:
    """An Event about it: `kind` is Normal or Warning."""
    metadata, moment = document["metadata"], _time(now)
    about = {"apiVersion": f"{GROUP}/v1", "kind": "ManagedCluster", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": "default"},
        "involvedObject": about,
        "type": kind,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": "kulvert"},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def _conditions(document: Object, cluster: Cluster | None, failure: str) -> list[Condition]:
    """Under OCM's names."""
    mine = {one.type: one for one in cluster.conditions} if cluster is not None else {}
    made = [mine.get(kind) or Condition(kind, UNKNOWN, "Unknown", "not known yet") for kind in _TYPES]
    if not accepts(document):
        made[0] = Condition(HUB_ACCEPTED, FALSE, "NotAccepted", "spec.hubAcceptsClient is not true")
    if failure and made[1].status != TRUE:
        made[1] = Condition(JOINED, FALSE, FAILED, failure[:1024])
    elif failure:
        made[1] = Condition(JOINED, TRUE, FAILED, failure[:1024])
    return [Condition(_TYPES[one.type], one.status, one.reason, one.message) for one in made]


def _differs(before: Mapping[str, Any] | None, after: Condition) -> bool:
    if before is None:
        return True
    return (before.get("status"), before.get("reason"), before.get("message")) != (
        after.status,
        after.reason,
        after.message,
    )


def _shown(after: Condition, before: Mapping[str, Any] | None, now: float) -> dict[str, Any]:
    """The transition's time stays where the status does."""
    stays = before is not None and before.get("status") == after.status and before.get("lastTransitionTime")
    parts = {"type": after.type, "status": after.status, "reason": after.reason, "message": after.message}
    return parts | {"lastTransitionTime": stays or _time(now)}


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
