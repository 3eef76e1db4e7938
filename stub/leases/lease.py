"""A coordination.k8s.io/v1 Lease as far as it counts here, and the port to wherever Leases are kept.

Source: kubernetes.io/docs/concepts/architecture/leases/, and client-go's tools/leaderelection for the record's meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class LeaseConflict(Exception):
    """Somebody else wrote it meanwhile (409), made it before (409) or deleted it (404): look again."""


class LeasesUnavailable(Exception):
    """Leases cannot be read or written just now; the text says why, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Lease:
    """`version` is the resourceVersion that a write replaces, and empty for one that is to be made."""

    name: str
    holder: str = ""
    """The identity of its holder; empty: it was released, or never held."""
    duration: int = 15
    """Seconds for which it counts after the last renewal that an observer has seen, by the observer's own clock."""
    acquired: float = 0.0
    """Seconds since the epoch by the holder's clock: for people, never compared with another clock."""
    renewed: float = 0.0
    transitions: int = 0
    """How often the holder changed (`leaseTransitions`)."""
    epoch: int = 0
    """Rises with each holding, whatever becomes of the object (annotation `kulvert.dev/epoch`)."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Further annotations below `kulvert.dev/`, without that prefix: a replica's addresses, for one."""
    version: str = ""


class LeaseStore(Protocol):
    """Where Leases are kept: the hub's API, or a test's memory. All methods raise LeasesUnavailable."""

    async def get(self, name: str) -> Lease | None:
        """The Lease, or None where there is none."""
        ...

    async def list(self) -> Sequence[Lease]:
        """All of this installation's, by one question."""
        ...

    async def put(self, lease: Lease) -> Lease:
        """Make it (no `version`), or replace that very version; gives what is there now. Raises LeaseConflict."""
        ...

    async def delete(self, lease: Lease) -> None:
        """Delete that very version; harmless where it is gone. Raises LeaseConflict."""
        ...
