"""A managed service account as an object of Kulvert's API: read strictly, shown with its conditions and no token."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from gateway.database import RegistryError
from gateway.serviceaccounts.store import Managed, Wanted, holder_of

API_VERSION: Final = "kulvert.dev/v1alpha1"
KIND: Final = "ManagedServiceAccount"
ISSUED: Final = "TokenReported"
PROJECTED: Final = "Projected"
_SPEC: Final = ("cluster", "namespace", "holder", "file", "secret", "audiences", "rotation")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def read(document: object) -> Wanted:
    """What an object asks for. :raises RegistryError: it is none, or has a field that is not known or wrong."""
    found = _mapping(document, "the document", ("apiVersion", "kind", "metadata", "spec", "status"))
    if (found.get("apiVersion"), found.get("kind")) != (API_VERSION, KIND):
        raise RegistryError(f"the document is no {KIND} of apiVersion {API_VERSION}")
    metadata = _mapping(found.get("metadata"), "metadata", None)
    spec = _mapping(found.get("spec"), "spec", _SPEC)
    rotation = _mapping(spec.get("rotation", {}), "spec.rotation", ("validity",))
    audiences = spec.get("audiences", [])
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        raise RegistryError("spec.audiences is a list of texts")
    return Wanted(
        _text(spec, "cluster", "spec."),
        _text(spec, "namespace", "spec."),
        _text(metadata, "name", "metadata."),
        holder_of(_text(spec, "holder", "spec.")),
        _text(spec, "file", "spec.") if "file" in spec else "",
        tuple(audiences),
        _seconds(rotation.get("validity", "1h")),
        _text(spec, "secret", "spec.") if "secret" in spec else "",
    )


def shown(managed: Managed) -> dict[str, object]:
    """The object, with how it is."""
    wanted, state = managed.wanted, managed.state
    metadata: dict[str, object] = {
        "name": wanted.name,
        "creationTimestamp": _time(managed.created),
        "annotations": {"kulvert.dev/asked-by": managed.asked_by},
    }
    if managed.deleted:
        metadata["deletionTimestamp"] = _time(managed.deleted)
    status: dict[str, object] = {"conditions": conditions(managed)}
    if state.expires:
        status["expirationTimestamp"] = _time(state.expires)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata,
        "spec": {
            "cluster": wanted.cluster,
            "namespace": wanted.namespace,
            "holder": wanted.holder,
            **({"file": wanted.file} if wanted.file else {"secret": wanted.secret}),
            "audiences": list(wanted.audiences),
            "rotation": {"validity": f"{wanted.lifetime:.0f}s"},
        },
        "status": status,
    }


def conditions(managed: Managed) -> list[dict[str, str]]:
    """Whether the cluster gave a token, and whether it is in its place; the last failure is told with either."""
    state = managed.state
    given, place = bool(state.expires), bool(state.expires) and not managed.deleted
    return [
        _condition(ISSUED, given, "TokenReported" if given else state.reason, state.error, state.changed),
        _condition(PROJECTED, place, state.reason if state.error else "Projected", state.error, state.changed),
    ]


def _condition(kind: str, holds: bool, reason: str, message: str, changed: float) -> dict[str, str]:
    told = {"type": kind, "status": "True" if holds else "False", "reason": reason, "message": message}
    return told | {"lastTransitionTime": _time(changed)}


def _mapping(value: object, where: str, known: Collection[str] | None) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RegistryError(f"{where} is missing, or no mapping")
    if known is not None and (unknown := sorted(str(key) for key in value if key not in known)):
        raise RegistryError(f"{where} has a field that is not known: {unknown[0][:64]!a}; known are {', '.join(known)}")
    return value


def _text(values: Mapping[str, Any], name: str, where: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value:
        raise RegistryError(f"{where}{name} is missing, or no text")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, str) and value[:-1].isdecimal() and len(value) <= 9 and value[-1] in _UNITS:
        return int(value[:-1]) * _UNITS[value[-1]]
    raise RegistryError("spec.rotation.validity is a span of time: 30m, 12h, 1d")


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
