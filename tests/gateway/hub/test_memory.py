"""What an informer knows, event by event and list by list; and what it costs."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from gateway.hub.memory import Delta, Malformed, Memory, TooMany, identified
from gateway.hub.source import Object
from tests.gateway.hub.scripted_hub import item, spec


def listed(memory: Memory[str], *items: dict[str, Any], trusted: bool = True) -> list[Delta[str]]:
    staging = memory.stage(trusted)
    for one in items:
        staging.add(one)
    return staging.done()


def memory(*items: dict[str, Any], most: int = 10) -> Memory[str]:
    made = Memory(spec, most)
    listed(made, *items)
    return made


def test_a_list_changes_nothing_until_it_is_whole() -> None:
    made = memory(item("a", 1, "one"))
    staging = made.stage()
    staging.add(item("b", 2, "two"))
    assert dict(made.items) == {"a": "one"}
    assert staging.done() == [Delta("a", "one", None), Delta("b", None, "two")]
    assert dict(made.items) == {"b": "two"}
    assert dict(made.versions) == {"b": "2"}


def test_items_are_a_view_that_nobody_can_change_and_that_lives() -> None:
    made = memory()
    items = made.items
    with pytest.raises(TypeError):
        items["a"] = "mine"  # type: ignore[index]  # it is what is refused
    listed(made, item("a", 1, "one"))
    made.change("ADDED", item("b", 2, "two"))
    assert dict(items) == {"a": "one", "b": "two"}


@pytest.mark.parametrize(
    ("kind", "event", "delta"),
    [
        ("ADDED", item("b", 2, "two"), Delta("b", None, "two")),
        ("MODIFIED", item("b", 2, "two"), Delta("b", None, "two")),
        ("ADDED", item("a", 2, "two"), Delta("a", "one", "two")),
        ("MODIFIED", item("a", 2, "two"), Delta("a", "one", "two")),
        ("MODIFIED", item("a", 2, "one"), None),
        ("MODIFIED", item("a", 1, "two"), None),
        ("MODIFIED", item("a", 2, None), Delta("a", "one", None)),
        ("MODIFIED", item("a", 2, 7), None),
        ("ADDED", item("b", 2, None), None),
        ("ADDED", item("b", 2, 7), None),
        ("DELETED", item("a", 9, "two"), Delta("a", "one", None)),
        ("DELETED", item("a", 1, "one"), Delta("a", "one", None)),
        ("DELETED", item("b", 2, "two"), None),
        ("DELETED", item("a", 2, 7), Delta("a", "one", None)),
        ("ADDED", item("a", 1, "one", namespace="ns"), Delta("ns/a", None, "one")),
    ],
)
def test_an_event(kind: str, event: dict[str, Any], delta: Delta[str] | None) -> None:
    made = memory(item("a", 1, "one"))
    assert made.change(kind, event) == delta


def test_one_that_was_left_out_and_is_not_any_more_is_new() -> None:
    made = memory(item("a", 1, None))
    assert made.change("MODIFIED", item("a", 2, "one")) == Delta("a", None, "one")
    assert made.change("MODIFIED", item("a", 3, None)) == Delta("a", "one", None)
    assert made.change("DELETED", item("a", 4, None)) is None


def test_one_that_cannot_be_read_any_more_counts_as_it_was_until_it_is_gone() -> None:
    made = memory(item("a", 1, "one"))
    assert listed(made, item("a", 2, 7), item("b", 2, 7)) == []
    assert dict(made.items) == {"a": "one"}
    assert (made.bad, made.skipped) == (["a", "b"], 2)
    assert listed(made, item("a", 2, 7)) == []
    assert (made.bad, made.skipped) == (["a"], 2)
    assert made.change("DELETED", item("a", 3, 7)) == Delta("a", "one", None)
    assert made.bad == []


def test_the_last_of_two_of_one_name_in_a_list_counts() -> None:
    made = memory()
    assert listed(made, item("a", 1, "one"), item("a", 2, None)) == []
    assert listed(made, item("a", 3, None), item("a", 4, "two")) == [Delta("a", None, "two")]


@pytest.mark.parametrize(("trusted", "value"), [(True, "one"), (False, "other")])
def test_a_value_of_a_known_version_is_made_again_only_without_trust(trusted: bool, value: str) -> None:
    made = memory(item("a", 1, "one"))
    listed(made, item("a", 1, "other"), trusted=trusted)
    assert made.items["a"] == value


def test_there_is_no_room_beyond_its_bound() -> None:
    made = memory(item("a", 1, "one"), item("b", 1, None), most=2)
    assert made.full
    assert made.change("ADDED", item("c", 2, "x")) is None
    assert made.lacks
    assert made.change("MODIFIED", item("b", 2, "y")) == Delta("b", None, "y")
    made.change("DELETED", item("a", 3))
    assert made.change("ADDED", item("c", 2, "x")) == Delta("c", None, "x")
    staging = made.stage()
    for name in "ab":
        staging.add(item(name, 5, "x"))
    with pytest.raises(TooMany):
        staging.add(item("c", 5, "x"))
    listed(made, item("a", 5, "x"))
    assert not made.lacks


@pytest.mark.parametrize(
    "broken",
    [
        None,
        7,
        [],
        {},
        {"metadata": None},
        {"metadata": {"name": "a"}},
        {"metadata": {"name": "", "resourceVersion": "1"}},
        {"metadata": {"name": 7, "resourceVersion": "1"}},
        {"metadata": {"name": "a", "resourceVersion": ""}},
        {"metadata": {"name": "a", "resourceVersion": 7}},
        {"metadata": {"name": "a", "resourceVersion": "1", "namespace": 7}},
    ],
    ids=str,
)
def test_what_is_no_object_is_told_apart(broken: Any) -> None:
    with pytest.raises(Malformed):
        identified(broken)


# --- what it costs


@dataclass(frozen=True, slots=True)
class Minimal:
    """As a view of a ManagedCluster may be."""

    name: str
    uid: str
    accepted: bool
    version: str


def minimal(document: Object) -> Minimal:
    metadata = document["metadata"]
    accepted = document["spec"].get("hubAcceptsClient") is True
    return Minimal(metadata["name"], metadata["uid"], accepted, metadata["resourceVersion"])


def managed_cluster(number: int) -> bytes:
    """About as long as OCM's are: some 2.5 kB."""
    condition = {"type": "X", "status": "True", "reason": "Y" * 20, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    name = f"customer-{number:05}-edge"
    metadata = {
        "name": name,
        "uid": f"9ae0f4b4-0000-4000-8000-{number:012}",
        "resourceVersion": str(1_000_000 + number),
        "labels": {f"label-{one}": name for one in range(10)},
        "managedFields": [{"manager": "x", "fieldsV1": {f"f:{one}": {} for one in range(40)}}],
    }
    status = {"conditions": [condition | {"message": "m" * 80} for _ in range(5)], "capacity": {"cpu": "64"}}
    spec = {"hubAcceptsClient": True, "leaseDurationSeconds": 60}
    return orjson.dumps({"kind": "ManagedCluster", "metadata": metadata, "spec": spec, "status": status})


def test_ten_thousand_objects_cost_as_much_as_their_values() -> None:
    count = 10_000
    lines = [managed_cluster(number) for number in range(count)]
    made = Memory(minimal, count)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        staging = made.stage()
        for line in lines:
            staging.add(orjson.loads(line))
        staging.done()
        del staging
        after, _ = tracemalloc.get_traced_memory()
        for line in lines:  # all of them anew, in other versions
            made.change("MODIFIED", orjson.loads(line.replace(b'"resourceVersion":"1', b'"resourceVersion":"2')))
        changed, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    each = (after - before) / count
    print(f"{each:.0f} bytes an item, {len(lines[0])} bytes its object; {(changed - before) / count:.0f} when changed")
    assert len(made.items) == count
    assert made.items["customer-00007-edge"].version == "2000007"
    assert each < 700
    assert (changed - before) / count < 700, "what was before is not kept"
