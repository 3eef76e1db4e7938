"""Leases on the hub's API: `stub.leases.lease.LeaseStore` for one installation in one namespace.

The objects are what kubectl and client-go know as leader-election records; what Kubernetes has no field for is in
annotations below `kulvert.dev/`. Each write is a PUT with the uid and resourceVersion that were read, or a POST. A PUT
without the uid would make a Lease anew that was deleted (API servers allow that for Leases), whatever its version says.
Source: kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from gateway.hub.objects import Answer, HubObjects, HubUnavailable
from stub.leases.lease import Lease, LeaseConflict, LeasesUnavailable

GROUP: Final = "coordination.k8s.io/v1"
PREFIX: Final = "kulvert.dev/"
EPOCH: Final = PREFIX + "epoch"
INSTALLATION: Final = PREFIX + "installation"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
_MOST_EPOCH: Final = 2**63


class HubLeases:
    """`installation` is the label's value: several may share a namespace, if their Leases are called differently."""

    def __init__(self, objects: HubObjects, namespace: str, installation: str = "kulvert") -> None:
        self._objects = objects
        self._namespace = namespace
        self._labels = {MANAGED_BY: "kulvert", INSTALLATION: installation}

    async def get(self, name: str) -> Lease | None:
        """See `LeaseStore`."""
        answer = await self._ask("GET", lease_path(self._namespace, name))
        return None if answer.status == 404 else lease_of(self._body(answer, f"reading Lease {name}"))

    async def list(self) -> Sequence[Lease]:
        """See `LeaseStore`. All of one moment: it is not asked for in pages."""
        answer = await self._ask("GET", f"{lease_path(self._namespace)}?labelSelector={quote(self.selector, safe='')}")
        items = self._body(answer, "listing Leases").get("items")
        if not isinstance(items, list):
            raise LeasesUnavailable("listing Leases: the hub's answer is no list")
        return [lease_of(one) for one in items]

    @property
    def selector(self) -> str:
        """For the list, and for a watch."""
        return ",".join(f"{name}={value}" for name, value in self._labels.items())

    async def put(self, lease: Lease) -> Lease:
        """See `LeaseStore`."""
        method = "PUT" if lease.version else "POST"
        path = lease_path(self._namespace, lease.name if lease.version else "")
        answer = await self._ask(method, path, self._object(lease))
        if answer.status in (404, 409) and (lease.version or answer.body.get("reason") == "AlreadyExists"):
            raise LeaseConflict(lease.name)
        return lease_of(self._body(answer, f"writing Lease {lease.name}"))

    async def delete(self, lease: Lease) -> None:
        """See `LeaseStore`."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": _exact(lease)}
        answer = await self._ask("DELETE", lease_path(self._namespace, lease.name), options)
        if answer.status == 409:
            raise LeaseConflict(lease.name)
        if answer.status != 404:
            self._body(answer, f"deleting Lease {lease.name}")

    # ---

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        try:
            return await self._objects.ask(method, path, body)
        except HubUnavailable as error:
            raise LeasesUnavailable(str(error)) from None

    @staticmethod
    def _body(answer: Answer, what: str) -> Mapping[str, Any]:
        if answer.status not in (200, 201, 202):
            hint = f" (the server needs a role for leases of {GROUP})" if answer.status == 403 else ""
            raise LeasesUnavailable(f"{answer.refused(what)}{hint}")
        return answer.body

    def _object(self, lease: Lease) -> Mapping[str, Any]:
        notes = {PREFIX + name: value for name, value in lease.notes.items()}
        metadata: dict[str, Any] = {
            "name": lease.name,
            "namespace": self._namespace,
            "labels": self._labels,
            "annotations": notes | {EPOCH: str(lease.epoch)},
        }
        spec = {
            "holderIdentity": lease.holder,
            "leaseDurationSeconds": lease.duration,
            "acquireTime": micro_time(lease.acquired),
            "renewTime": micro_time(lease.renewed),
            "leaseTransitions": lease.transitions,
        }
        return {"apiVersion": GROUP, "kind": "Lease", "metadata": {**metadata, **_exact(lease)}, "spec": spec}


def lease_path(namespace: str, name: str = "") -> str:
    """One, or all of a namespace's."""
    base = f"/apis/{GROUP}/namespaces/{quote(namespace, safe='')}/leases"
    return f"{base}/{quote(name, safe='')}" if name else base


def lease_of(document: Mapping[str, Any]) -> Lease:
    """An object as it was read; whatever of it is missing or no such thing is as if it were not there. Raises
    LeasesUnavailable: it has no name or version.
    """
    metadata, spec = _mapping(document, "metadata"), _mapping(document, "spec")
    name, *version = (metadata.get(key) for key in ("name", "uid", "resourceVersion"))
    if not all(isinstance(one, str) and one for one in (name, *version)):
        raise LeasesUnavailable("the hub's answer is no Lease")
    annotations = {key: value for key, value in _mapping(metadata, "annotations").items() if isinstance(value, str)}
    notes = {key.removeprefix(PREFIX): value for key, value in annotations.items() if key.startswith(PREFIX)}
    notes.pop("epoch", None)
    holder = spec.get("holderIdentity")
    return Lease(
        str(name),
        holder=holder if isinstance(holder, str) else "",
        duration=_number(spec.get("leaseDurationSeconds"), 15),
        acquired=seconds(spec.get("acquireTime")),
        renewed=seconds(spec.get("renewTime")),
        transitions=_number(spec.get("leaseTransitions"), 0),
        epoch=_epoch(annotations.get(EPOCH, "")),
        notes=notes,
        version=" ".join(map(str, version)),
    )


def _exact(lease: Lease) -> Mapping[str, str]:
    """What a write or a deletion is for: this very object, in this very version."""
    uid, _, version = lease.version.partition(" ")
    return {"uid": uid, "resourceVersion": version} if version else {}


def micro_time(moment: float) -> str:
    """Kubernetes' MicroTime: RFC 3339 in UTC, always with six digits."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds(told: object) -> float:
    """A MicroTime in seconds since the epoch; 0: it is none."""
    try:
        return datetime.fromisoformat(told).timestamp() if isinstance(told, str) else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name) if isinstance(document, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _number(told: object, otherwise: int) -> int:
    return told if isinstance(told, int) and not isinstance(told, bool) and told >= 0 else otherwise


def _epoch(told: str) -> int:
    number = int(told) if told.isascii() and told.isdigit() and len(told) < 20 else 0
    return number if number < _MOST_EPOCH else 0
