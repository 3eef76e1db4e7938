"""A managed cluster, as the registry knows it."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace

from gateway.database import RegistryError
from gateway.membership.conditions import Condition
from gateway.membership.inventory import NOTHING, Inventory

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
TERMINATING = "Terminating"
MARKS = 32
"""Gates, finalizers and conditions that a cluster may have of each."""
_MARK = re.compile(r"[A-Za-z0-9]([A-Za-z0-9./_-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A managed cluster. `uid` is None until a cluster has been accepted for the name, at `accepted`. `phase` is
    TERMINATING from when its removal was asked for. Users are let through where each of its `gates` is a condition that
    is True; its name is not free again while others' `finalizers` are there. `denied`: the hub's administrator accepts
    it no more, so that neither its agents nor users come in, until he does again. `hub_accepted`: the uid of which the
    hub is known to have heard that it is in, since it was let in last (`gateway.hub.registration`).

    :raises RegistryError: the name is no DNS-1123 label (RFC 1123, at most 63 characters).
    """

    name: str
    uid: str | None = None
    created: float = 0.0
    labels: tuple[tuple[str, str], ...] = ()
    accepted: float = 0.0
    phase: str = ""
    gates: tuple[str, ...] = ()
    finalizers: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    denied: bool = False
    inventory: Inventory = NOTHING
    hub_accepted: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise RegistryError(f"{self.name!r} is no cluster name: use a-z, 0-9 and -, at most 63 characters")


class Mark(enum.Enum):
    """What others may put on a cluster, by name."""

    GATE = "gate"
    FINALIZER = "finalizer"


def checked_mark(kind: Mark, value: str) -> str:
    """:raises RegistryError: no gate or finalizer can have this name."""
    if not _MARK.fullmatch(value):
        raise RegistryError(f"{value[:128]!r} is no {kind.value}: write a word, or example.com/word")
    return value


def marks_of(cluster: Cluster, kind: Mark) -> set[str]:
    """Its gates, or its finalizers."""
    return set(cluster.gates if kind is Mark.GATE else cluster.finalizers)


def marked(cluster: Cluster, kind: Mark, values: set[str]) -> Cluster:
    """The same with these gates, or finalizers."""
    found = tuple(sorted(values))
    return replace(cluster, gates=found) if kind is Mark.GATE else replace(cluster, finalizers=found)
