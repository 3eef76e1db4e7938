"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902), on copies: a stored object never changes in place."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from cli.sample.document import Obj
from cli.sample.status import ApiError, bad_request
from cli.sample.strategic import strategic

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
TYPES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH)


def apply(content_type: str, target: Obj, patch: Any) -> Obj:
    if content_type == JSON_PATCH:
        return _object(json_patch(target, patch))
    if not isinstance(patch, dict):
        raise bad_request("a merge patch must be an object")
    return _object((merge if content_type == MERGE_PATCH else strategic)(target, patch))


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    if not isinstance(operations, list):
        raise bad_request("a JSON patch must be a list of operations")
    document = {"": deepcopy(target)}  # the root has a parent, so that no operation needs a special case
    for operation in operations:
        try:
            _operate(document, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise _refused(operation) from error
    return document[""]


def _operate(document: Obj, operation: Obj) -> None:
    kind, path = operation["op"], operation["path"]
    if kind == "test":
        if _get(document, path) != operation["value"]:
            raise ValueError(path)
    elif kind == "remove":
        _remove(document, path)
    elif kind == "add":
        _add(document, path, deepcopy(operation["value"]))
    elif kind == "replace":
        _remove(document, path)
        _add(document, path, deepcopy(operation["value"]))
    elif kind == "copy":
        _add(document, path, deepcopy(_get(document, operation["from"])))
    elif kind == "move":
        _add(document, path, _remove(document, operation["from"]))
    else:
        raise ValueError(kind)


def _keys(pointer: str) -> list[str]:
    return [key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")]


def _parent(document: Any, pointer: str) -> tuple[Any, str]:
    *path, last = _keys(pointer)
    for key in path:
        document = document[_index(document, key)]
    return document, last


def _index(container: Any, key: str) -> Any:
    if not isinstance(container, list):
        return key
    if not key.isdigit():
        raise ValueError(key)
    return int(key)


def _get(document: Any, pointer: str) -> Any:
    parent, key = _parent(document, pointer)
    return parent[_index(parent, key)]


def _remove(document: Any, pointer: str) -> Any:
    parent, key = _parent(document, pointer)
    return parent.pop(_index(parent, key))


def _add(document: Any, pointer: str, value: Any) -> None:
    parent, key = _parent(document, pointer)
    if not isinstance(parent, list):
        parent[key] = value
        return
    index = len(parent) if key == "-" else _index(parent, key)
    if index > len(parent):
        raise IndexError(key)
    parent.insert(index, value)


def _object(value: Any) -> Obj:
    if not isinstance(value, dict):
        raise bad_request("the patched document is no object")
    return value


def _refused(operation: Any) -> ApiError:
    message = f"the server rejected our request due to an error in our request: cannot apply {operation}"
    return ApiError(422, "Invalid", message)
