"""What is in a cluster, in a few words and numbers, as its agents report it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

Amounts: TypeAlias = tuple[tuple[str, str], ...]
RESOURCES: Final = ("cpu", "memory", "pods")
MAX_NODES: Final = 1_000_000
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}|")
_QUANTITY: Final = re.compile(r"[0-9]{1,30}(m|Ki)?")


class BadInventory(ValueError):
    """It cannot be like this; the text says why."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """`version` is Kubernetes' own (v1.36.0), `provider` one of aws, gce, azure, kind, …: both may be empty. Where the
    agents may not list nodes, `nodes` and `ready_nodes` are None and there are no amounts. Those are Kubernetes'
    quantities: of all nodes, and of those that take new pods.
    """

    version: str = ""
    provider: str = ""
    nodes: int | None = None
    ready_nodes: int | None = None
    capacity: Amounts = ()
    allocatable: Amounts = ()

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Inventory:
        """From a report. :raises BadInventory: something in it is malformed or too long."""
        version, provider = told.get("kubernetes", ""), told.get("provider", "")
        if not isinstance(version, str) or len(version) > 64 or not version.isascii() or not version.isprintable():
            raise BadInventory("kubernetes must be a version of at most 64 printable characters")
        if not isinstance(provider, str) or not _WORD.fullmatch(provider):
            raise BadInventory("provider must be one word")
        if "nodes" not in told:
            return cls(version, provider)
        nodes = told["nodes"] if isinstance(told["nodes"], dict) else {}
        count, ready = _count(nodes.get("count")), _count(nodes.get("ready"))
        return cls(version, provider, count, ready, _amounts(told, "capacity"), _amounts(told, "allocatable"))

    @property
    def known(self) -> bool:
        """Whether there is anything in it."""
        return self != Inventory()

    def text(self) -> str:
        """For a row, or an annotation; the same for the same, and empty for nothing."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")) if self.known else ""

    @classmethod
    def read(cls, text: str) -> Inventory:
        """From `text`. What cannot be read is nothing."""
        try:
            found = json.loads(text) if text else {}
            amounts = {name: dict(found[name]) for name in ("capacity", "allocatable") if name in found}
            nodes = (
                {"nodes": {"count": found["nodes"], "ready": found["ready_nodes"]}}
                if found.get("nodes") is not None
                else {}
            )
            return cls.of(
                {"kubernetes": found.get("version", ""), "provider": found.get("provider", "")} | nodes | amounts
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls()

    def shown(self) -> dict[str, object]:
        """Parts of an object's status."""
        made: dict[str, object] = {"version": {"kubernetes": self.version}, "provider": self.provider}
        if self.nodes is not None:
            made["nodes"] = {"count": self.nodes, "ready": self.ready_nodes}
            made |= {"capacity": dict(self.capacity), "allocatable": dict(self.allocatable)}
        return made


NOTHING: Final = Inventory()


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_NODES:
        raise BadInventory(f"nodes must be counts of at most {MAX_NODES}")
    return value


def _amounts(told: Mapping[str, Any], name: str) -> Amounts:
    found = told.get(name, {})
    if not isinstance(found, dict):
        raise BadInventory(f"{name} must be quantities by name")
    amounts = tuple((resource, found[resource]) for resource in RESOURCES if resource in found)
    if len(amounts) != len(found) or not all(isinstance(v, str) and _QUANTITY.fullmatch(v) for _, v in amounts):
        raise BadInventory(f"{name} must be quantities of {', '.join(RESOURCES)}")
    return amounts
