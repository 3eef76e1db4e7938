"""Field numbers of the messages that `protobuf` reads, from Kubernetes' generated.proto files (they never change).

Only what a client writes is listed: no status, and of the kinds those that kubectl's typed commands create.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """`type` is string, bytes, int, bool or the name of a message; of a map, its values' type."""

    name: str
    type: str = "string"
    repeated: bool = False
    mapped: bool = False


def _many(name: str, kind: str = "string") -> Field:
    return Field(name, kind, repeated=True)


def _map(name: str, kind: str = "string") -> Field:
    return Field(name, kind, mapped=True)


def _spec(kind: str) -> Mapping[int, Field]:
    return {1: Field("metadata", "ObjectMeta"), 2: Field("spec", kind)}


_META: Mapping[str, Mapping[int, Field]] = {
    "Unknown": {1: Field("typeMeta", "TypeMeta"), 2: Field("raw", "bytes")},
    "TypeMeta": {1: Field("apiVersion"), 2: Field("kind")},
    "Time": {1: Field("seconds", "int"), 2: Field("nanos", "int")},
    "IntOrString": {1: Field("type", "int"), 2: Field("intVal", "int"), 3: Field("strVal")},
    "ObjectMeta": {
        1: Field("name"),
        2: Field("generateName"),
        3: Field("namespace"),
        5: Field("uid"),
        6: Field("resourceVersion"),
        11: _map("labels"),
        12: _map("annotations"),
        13: _many("ownerReferences", "OwnerReference"),
        14: _many("finalizers"),
    },
    "OwnerReference": {
        1: Field("kind"),
        3: Field("name"),
        4: Field("uid"),
        5: Field("apiVersion"),
        6: Field("controller", "bool"),
        7: Field("blockOwnerDeletion", "bool"),
    },
    "Preconditions": {1: Field("uid"), 2: Field("resourceVersion")},
    "DeleteOptions": {
        1: Field("gracePeriodSeconds", "int"),
        2: Field("preconditions", "Preconditions"),
        3: Field("orphanDependents", "bool"),
        4: Field("propagationPolicy"),
        5: _many("dryRun"),
    },
}

_CORE: Mapping[str, Mapping[int, Field]] = {
    "ConfigMap": {
        1: Field("metadata", "ObjectMeta"),
        2: _map("data"),
        3: _map("binaryData", "bytes"),
        4: Field("immutable", "bool"),
    },
    "Secret": {
        1: Field("metadata", "ObjectMeta"),
        2: _map("data", "bytes"),
        3: Field("type"),
        4: _map("stringData"),
        5: Field("immutable", "bool"),
    },
    "Namespace": _spec("NamespaceSpec"),
    "NamespaceSpec": {1: _many("finalizers")},
    "Service": _spec("ServiceSpec"),
    "ServiceSpec": {
        1: _many("ports", "ServicePort"),
        2: _map("selector"),
        3: Field("clusterIP"),
        4: Field("type"),
        5: _many("externalIPs"),
        7: Field("sessionAffinity"),
        10: Field("externalName"),
        18: _many("clusterIPs"),
    },
    "ServicePort": {
        1: Field("name"),
        2: Field("protocol"),
        3: Field("port", "int"),
        4: Field("targetPort", "IntOrString"),
        5: Field("nodePort", "int"),
        6: Field("appProtocol"),
    },
}

_OTHERS: Mapping[str, Mapping[int, Field]] = {
    "Lease": _spec("LeaseSpec"),
    "LeaseSpec": {
        1: Field("holderIdentity"),
        2: Field("leaseDurationSeconds", "int"),
        3: Field("acquireTime", "Time"),
        4: Field("renewTime", "Time"),
        5: Field("leaseTransitions", "int"),
        6: Field("strategy"),
        7: Field("preferredHolder"),
    },
    "SelfSubjectReview": {1: Field("metadata", "ObjectMeta")},
    "SelfSubjectAccessReview": _spec("SelfSubjectAccessReviewSpec"),
    "SelfSubjectAccessReviewSpec": {
        1: Field("resourceAttributes", "ResourceAttributes"),
        2: Field("nonResourceAttributes", "NonResourceAttributes"),
    },
    "ResourceAttributes": {
        1: Field("namespace"),
        2: Field("verb"),
        3: Field("group"),
        4: Field("version"),
        5: Field("resource"),
        6: Field("subresource"),
        7: Field("name"),
    },
    "NonResourceAttributes": {1: Field("path"), 2: Field("verb")},
}

MESSAGES: Mapping[str, Mapping[int, Field]] = {**_META, **_CORE, **_OTHERS}
KINDS = (
    "ConfigMap",
    "DeleteOptions",
    "Lease",
    "Namespace",
    "Secret",
    "SelfSubjectAccessReview",
    "SelfSubjectReview",
    "Service",
)
