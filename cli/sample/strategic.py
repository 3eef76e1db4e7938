"""Strategic merge patch, for the few kinds there are: lists merge by a key where Kubernetes' types name one.

Merge keys come from a table of field names instead of schemas; `$setElementOrder` is left out of account,
since the order it asks for is the order in which elements are met.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from cli.sample.document import Obj

_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "conditions": "type",
    "ownerReferences": "uid",
    "taints": "key",
    "addresses": "type",
}
_PRIMITIVE_SETS = ("finalizers",)


def strategic(target: Any, patch: Obj) -> Obj:
    if patch.get("$patch") == "replace":
        return {key: value for key, value in deepcopy(patch).items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        _merge_key(result, key, value)
    return _retain(result, patch.get("$retainKeys"))


def _merge_key(result: Obj, key: str, value: Any) -> None:
    if key.startswith("$deleteFromPrimitiveList/"):
        field = key.partition("/")[2]
        result[field] = [item for item in result.get(field) or [] if item not in value]
    elif key.startswith("$"):
        return
    elif value is None:
        result.pop(key, None)
    elif isinstance(value, dict):
        result[key] = strategic(result.get(key), value)
    elif isinstance(value, list):
        result[key] = _merge_list(key, result.get(key) or [], value)
    else:
        result[key] = value


def _merge_list(field: str, target: list[Any], patch: list[Any]) -> list[Any]:
    if field in _PRIMITIVE_SETS:
        return target + [item for item in patch if item not in target]
    key = _list_key(field, patch)
    if key is None:
        return deepcopy(patch)
    if any(item.get("$patch") == "replace" for item in patch):
        return [deepcopy(item) for item in patch if "$patch" not in item]
    merged = {item.get(key): item for item in target}
    for item in patch:
        _merge_item(merged, item.get(key), item)
    return list(merged.values())


def _merge_item(merged: dict[Any, Any], identity: Any, item: Obj) -> None:
    if item.get("$patch") == "delete":
        merged.pop(identity, None)
    else:
        merged[identity] = strategic(merged.get(identity), item)


def _list_key(field: str, patch: list[Any]) -> str | None:
    """Ports are the one field whose key depends on the type: a container's or a Service's."""
    if not all(isinstance(item, dict) for item in patch):
        return None
    if field == "ports":
        return "containerPort" if any("containerPort" in item for item in patch) else "port"
    return _MERGE_KEYS.get(field)


def _retain(result: Obj, keys: list[str] | None) -> Obj:
    return result if keys is None else {key: value for key, value in result.items() if key in keys}
