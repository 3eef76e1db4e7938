"""How many connections to the API server there may be, and for how long; and how many there are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Numbers are of connections, times in seconds."""

    connections: int = 10_000
    """As many as there may be exchanges: each watch holds one."""
    idle: int = 256
    dials: int = 32
    """Handshakes at a time; a burst waits for connections that come back as well."""
    waiting: int = 1_000
    dial_timeout: float = 10.0
    idle_timeout: float = 55.0
    max_age: float = 600.0
    closing: float = 10.0
    sweep: float = 1.0


@dataclass(frozen=True, slots=True)
class PoolState:
    """What the pool holds, for metrics and tests."""

    open: int
    idle: int
    dialling: int
    waiting: int
    strays: int
