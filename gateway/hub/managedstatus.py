"""The status of a ManagedCluster, by the names of Open Cluster Management: what is said there, and what is to be.

It is others' as well: what they have written stays, and Kulvert's parts are replaced one by one.
Source: open-cluster-management.io/docs/concepts/cluster-inventory/managedcluster/, and .../clusterclaim/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from gateway.hub.source import Object
from gateway.membership.conditions import AVAILABLE, FALSE, HUB_ACCEPTED, JOINED, TRUE, UNKNOWN, Condition
from gateway.membership.registry import Cluster

FAILED: Final = "JoinFailed"
PROBLEM: Final = "CannotAccept"
REMOVING: Final = "kulvert.dev/Removing"
_TYPES: Final = {
    HUB_ACCEPTED: "HubAcceptedManagedCluster",
    JOINED: "ManagedClusterJoined",
    AVAILABLE: "ManagedClusterConditionAvailable",
}
_KNOWN: Final = frozenset({*_TYPES.values(), REMOVING})
_PLATFORMS: Final = {
    "aws": "AWS", "gce": "GCP", "azure": "Azure", "ibm": "IBM", "vsphere": "VSphere", "openstack": "OpenStack",
    "alicloud": "AlibabaCloud", "baremetalhost": "BareMetal",
}  # fmt: skip
"""OCM's words for platforms; whatever else there is, is Other."""
ID_CLAIM: Final = "id.k8s.io"
VERSION_CLAIM: Final = "kubeversion.open-cluster-management.io"
PLATFORM_CLAIM: Final = "platform.open-cluster-management.io"
_CLAIMS: Final = (ID_CLAIM, VERSION_CLAIM, PLATFORM_CLAIM)
Pairs: TypeAlias = tuple[tuple[str, str], ...]
Words: TypeAlias = tuple[tuple[str, str, str, str], ...]
"""(type, status, reason, message) of conditions."""


@dataclass(frozen=True, slots=True)
class Told:
    """Kulvert's parts of a status; sorted, so that the same are equal."""

    conditions: Words = ()
    version: str = ""
    capacity: Pairs = ()
    allocatable: Pairs = ()
    claims: Pairs = ()

    @classmethod
    def read(cls, document: Object) -> Told:
        """What an object says."""
        status = _object(document.get("status"))
        return cls(
            tuple(sorted(_words(one) for one in _objects(status.get("conditions")) if one.get("type") in _KNOWN)),
            str(_object(status.get("version")).get("kubernetes", "")),
            _pairs(status.get("capacity")),
            _pairs(status.get("allocatable")),
            tuple(
                sorted(
                    (str(one["name"]), str(one.get("value", ""))) for one in _claims(status) if one["name"] in _CLAIMS
                )
            ),
        )

    @classmethod
    def of(
        cls, accepts: bool, cluster: Cluster | None, failure: str = "", removing: str = "", problem: str = ""
    ) -> Told:
        """What is to be said: `failure` is why it has not joined, `removing` for what its removal waits, `problem` what
        keeps it from being accepted.
        """
        made = [_said(one) for one in _conditions(accepts, cluster, failure, problem)]
        if removing:
            made.append((REMOVING, TRUE, "Removing", removing[:1024]))
        inventory = cluster.inventory if cluster is not None else None
        if inventory is None or cluster is None:
            return cls(tuple(sorted(made)))
        claims = {
            ID_CLAIM: cluster.uid or "",
            VERSION_CLAIM: inventory.version,
            PLATFORM_CLAIM: _platform(inventory.provider),
        }
        return cls(
            tuple(sorted(made)),
            inventory.version,
            tuple(sorted(inventory.capacity)),
            tuple(sorted(inventory.allocatable)),
            tuple(sorted((name, value) for name, value in claims.items() if value)),
        )

    def is_in(self, there: Told) -> bool:
        """Whether all of it is said there. What this does not speak of may be anything."""
        return (
            set(self.conditions) <= set(there.conditions)
            and self.version in ("", there.version)
            and set(self.capacity) <= set(there.capacity)
            and set(self.allocatable) <= set(there.allocatable)
            and set(self.claims) <= set(there.claims)
            and not (_types(there.conditions) - _types(self.conditions))
        )

    def merged(self, document: Object, now: float) -> dict[str, Any] | None:
        """The object with this in its status, or None where it is so already."""
        if self.is_in(Told.read(document)):
            return None
        status = _object(document.get("status"))
        after: dict[str, Any] = {**status, "conditions": self._merged_conditions(status, now)}
        if self.version:
            after["version"] = {**_object(status.get("version")), "kubernetes": self.version}
        for name, amounts in (("capacity", self.capacity), ("allocatable", self.allocatable)):
            if amounts:
                after[name] = {**_object(status.get(name)), **dict(amounts)}
        if self.claims:
            mine = dict(self.claims)
            others = [one for one in _claims(status) if one["name"] not in mine]
            after["clusterClaims"] = [*others, *({"name": name, "value": value} for name, value in self.claims)]
        return {**document, "status": after}

    def _merged_conditions(self, status: Mapping[str, Any], now: float) -> list[dict[str, Any]]:
        """In their old order; a transition's time stays where the status does."""
        before = _objects(status.get("conditions"))
        left = {one[0]: one for one in self.conditions}
        after: list[dict[str, Any]] = []
        for one in before:
            kind = one.get("type")
            if kind in left:
                after.append(_shown(left.pop(str(kind)), one, now))
            elif kind != REMOVING:
                after.append(one)
        return after + [_shown(one, None, now) for one in left.values()]


NOTHING: Final = Told()


def _conditions(accepts: bool, cluster: Cluster | None, failure: str, problem: str) -> list[Condition]:
    mine = {one.type: one for one in cluster.conditions} if cluster is not None else {}
    made = [mine.get(kind) or Condition(kind, UNKNOWN, "Unknown", "not known yet") for kind in _TYPES]
    if not accepts:
        made[0] = Condition(HUB_ACCEPTED, FALSE, "NotAccepted", "spec.hubAcceptsClient is not true")
    if problem:
        made[0] = Condition(HUB_ACCEPTED, FALSE, PROBLEM, problem[:1024])
    if failure:
        made[1] = Condition(JOINED, TRUE if made[1].status == TRUE else FALSE, FAILED, failure[:1024])
    return made


def _said(one: Condition) -> tuple[str, str, str, str]:
    return _TYPES[one.type], one.status, one.reason, one.message


def _platform(provider: str) -> str:
    return _PLATFORMS.get(provider, "Other") if provider else ""


def _types(conditions: Words) -> set[str]:
    """Those that are there at times."""
    return {kind for kind, *_ in conditions if kind == REMOVING}


def _words(one: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return str(one.get("type")), str(one.get("status")), str(one.get("reason")), str(one.get("message"))


def _shown(after: tuple[str, str, str, str], before: Mapping[str, Any] | None, now: float) -> dict[str, Any]:
    kind, status, reason, message = after
    stays = before is not None and before.get("status") == status and before.get("lastTransitionTime")
    moment = stays or datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": moment}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _claims(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [one for one in _objects(status.get("clusterClaims")) if isinstance(one.get("name"), str)]


def _pairs(value: object) -> Pairs:
    return tuple(sorted((str(key), str(amount)) for key, amount in _object(value).items()))
