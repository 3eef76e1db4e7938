"""A cluster, and what belongs to it, as objects that look like Kubernetes': for the API, and for `-o json` and yaml."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias

from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.conditions import AVAILABLE, HUB_ACCEPTED, JOINED, TRUE, closed_gates
from gateway.membership.enrolments import Enrolment
from gateway.membership.registry import Cluster
from gateway.membership.removals import Removal

API_VERSION = "kulvert.dev/v1alpha1"
Object: TypeAlias = dict[str, Any]


def registered(cluster: Cluster) -> bool:
    """Whether it is what it is to be: accepted, joined, all its gates open, and not on its way out."""
    gates = (HUB_ACCEPTED, JOINED, *cluster.gates)
    return not (cluster.phase or cluster.denied) and not closed_gates(gates, cluster.conditions)


def status_word(cluster: Cluster) -> str:
    """One word for a list."""
    true = {one.type for one in cluster.conditions if one.status == TRUE}
    if cluster.phase:
        return cluster.phase
    if cluster.denied:
        return "Denied"
    if cluster.uid is None:
        return "Pending" if any(one.reason == "Pending" for one in cluster.conditions) else "New"
    if closed_gates(cluster.gates, cluster.conditions):
        return "Gated"
    return "Available" if AVAILABLE in true else "Unavailable"


def cluster_object(cluster: Cluster, removal: Removal | None = None) -> Object:
    """The cluster. What agents there are, the caller adds to `status` where it knows."""
    metadata: Object = {
        "name": cluster.name,
        "creationTimestamp": moment(cluster.created),
        "labels": dict(cluster.labels),
        "finalizers": list(cluster.finalizers),
    }
    status: Object = {
        "clusterId": cluster.uid or "",
        "phase": cluster.phase or "Active",
        "registered": registered(cluster),
        "conditions": [one.shown() for one in cluster.conditions],
        "denied": cluster.denied,
        **(cluster.inventory.shown() if cluster.inventory.known else {}),
    }
    if cluster.phase and removal is not None:
        metadata["deletionTimestamp"] = moment(removal.requested)
        status["removal"] = removal_object(removal)
    spec: Object = {"gates": list(cluster.gates)}
    return {"apiVersion": API_VERSION, "kind": "Cluster", "metadata": metadata, "spec": spec, "status": status}


def removal_object(removal: Removal) -> Object:
    """How far a removal has come."""
    return {
        "requestedBy": removal.by,
        "force": removal.force,
        "done": [{"step": one.step.value, "time": moment(one.when), "message": one.message} for one in removal.done],
        "waiting": removal.waiting,
        "left": list(removal.left),
    }


def enrolment_object(one: Enrolment) -> Object:
    """A request of an agent's."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Enrolment",
        "metadata": {"name": f"{one.cluster}.{one.fingerprint[:16]}", "creationTimestamp": moment(one.first)},
        "spec": {
            "cluster": one.cluster,
            "clusterId": one.cluster_id,
            "agent": one.agent,
            "address": one.address,
            "keyFingerprint": one.fingerprint,
            "token": one.token,
        },
        "status": {"state": one.state.value, "message": one.message, "lastSeen": moment(one.last)},
    }


def certificate_object(one: IssuedCertificate) -> Object:
    """An agent's certificate."""
    status: Object = {"notAfter": moment(one.expires)}
    if one.revoked is not None:
        status["revoked"] = moment(one.revoked)
    return {
        "apiVersion": API_VERSION,
        "kind": "AgentCertificate",
        "metadata": {"name": one.serial, "creationTimestamp": moment(one.issued)},
        "spec": {
            "cluster": one.cluster,
            "clusterId": one.cluster_id,
            "agent": one.agent,
            "keyFingerprint": one.fingerprint,
        },
        "status": status,
    }


def moment(when: float) -> str:
    """A time, as Kubernetes writes it."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
