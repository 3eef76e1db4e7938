"""The three kinds of patch, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from cli.sample.patches import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, apply
from cli.sample.status import ApiError

MERGES: list[tuple[Any, Any, Any]] = [
    ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    ({"a": 1}, {"a": None}, {}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
    ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
]


@pytest.mark.parametrize(("target", "patch", "expected"), MERGES)
def test_a_merge_patch_merges(target: Any, patch: Any, expected: Any) -> None:
    assert apply(MERGE_PATCH, target, patch) == expected


OPERATIONS: list[tuple[Any, Any]] = [
    ({"op": "add", "path": "/x", "value": 1}, {"a": [1, 2], "b": {"c/d": 3}, "x": 1}),
    ({"op": "add", "path": "/a/-", "value": 3}, {"a": [1, 2, 3], "b": {"c/d": 3}}),
    ({"op": "add", "path": "/a/0", "value": 0}, {"a": [0, 1, 2], "b": {"c/d": 3}}),
    ({"op": "remove", "path": "/a/0"}, {"a": [2], "b": {"c/d": 3}}),
    ({"op": "replace", "path": "/b/c~1d", "value": 4}, {"a": [1, 2], "b": {"c/d": 4}}),
    ({"op": "move", "from": "/a", "path": "/z"}, {"b": {"c/d": 3}, "z": [1, 2]}),
    ({"op": "copy", "from": "/a/1", "path": "/z"}, {"a": [1, 2], "b": {"c/d": 3}, "z": 2}),
    ({"op": "test", "path": "/a/1", "value": 2}, {"a": [1, 2], "b": {"c/d": 3}}),
]


@pytest.mark.parametrize(("operation", "expected"), OPERATIONS)
def test_a_json_patch_operates(operation: Any, expected: Any) -> None:
    target = {"a": [1, 2], "b": {"c/d": 3}}
    assert apply(JSON_PATCH, target, [operation]) == expected
    assert target == {"a": [1, 2], "b": {"c/d": 3}}


REFUSED: list[Any] = [
    {"op": "remove", "path": "/none"},
    {"op": "test", "path": "/a", "value": 2},
    {"op": "add", "path": "/l/5", "value": 2},
    {"op": "add", "path": "/l/-1", "value": 2},
    {"op": "shout", "path": "/a"},
    {"path": "/a"},
    "text",
]


@pytest.mark.parametrize("operation", REFUSED)
def test_a_json_patch_that_does_not_apply_is_refused(operation: Any) -> None:
    with pytest.raises(ApiError) as caught:
        apply(JSON_PATCH, {"a": 1, "l": []}, [operation])
    assert caught.value.code == 422


@pytest.mark.parametrize(("kind", "patch"), [(JSON_PATCH, {}), (MERGE_PATCH, []), (STRATEGIC_PATCH, [])])
def test_a_patch_of_the_wrong_shape_is_refused(kind: str, patch: Any) -> None:
    with pytest.raises(ApiError):
        apply(kind, {}, patch)


POD = {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}], "tolerations": [{"key": "x"}]}
STRATEGIC: list[tuple[Any, Any]] = [
    (
        {"containers": [{"name": "b", "image": "2"}]},
        {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]},
    ),
    ({"containers": [{"name": "a", "$patch": "delete"}]}, {"containers": [{"name": "b", "image": "1"}]}),
    ({"containers": [{"name": "c"}, {"$patch": "replace"}]}, {"containers": [{"name": "c"}]}),
    ({"tolerations": [{"key": "y"}]}, {"tolerations": [{"key": "y"}]}),
    ({"finalizers": ["f"], "$setElementOrder/containers": []}, {"finalizers": ["f"]}),
    ({"$deleteFromPrimitiveList/finalizers": ["f"]}, {"finalizers": []}),
    ({"tolerations": None, "containers": None}, None),
]


@pytest.mark.parametrize(("patch", "changed"), STRATEGIC)
def test_a_strategic_patch_merges_lists_by_their_keys(patch: Any, changed: Any) -> None:
    assert apply(STRATEGIC_PATCH, POD, patch) == ({} if changed is None else POD | changed)


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"$patch": "replace", "x": 1}, {"x": 1}),
        ({"$patch": "delete"}, {}),
        ({"$retainKeys": ["x"], "x": 1}, {"x": 1}),
    ],
)
def test_a_strategic_patch_can_replace_what_it_meets(patch: Any, expected: Any) -> None:
    assert apply(STRATEGIC_PATCH, {"m": {"a": 1}}, {"m": patch}) == {"m": expected}


def test_ports_merge_by_the_key_of_their_type() -> None:
    service = {"ports": [{"port": 80, "name": "a"}]}
    assert apply(STRATEGIC_PATCH, service, {"ports": [{"port": 80, "targetPort": 1}]}) == {
        "ports": [{"port": 80, "name": "a", "targetPort": 1}]
    }
