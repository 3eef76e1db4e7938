"""What replicas allow one another. They trust each other; the bounds are for mistakes and for what users cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tunnel.limits import MIB, LinkLimits, Timing

EPOCH: Final = 0
"""Of every HEAD between replicas. What counts is asked at the holder: whether the cluster is its own right now."""


def _limits() -> LinkLimits:
    """One session carries what all users of one replica ask of another."""
    return LinkLimits(exchanges=100_000, remembered_resets=100_000, empty_frames=10_000, control_queue=4 * MIB)


def _timing() -> Timing:
    """Replicas are near one another, and a Lease is over within seconds: what waits for a dead one has to fail soon."""
    return Timing(ping_after=2.0, dead_after=8.0)


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """`links` bounds the own links of a session, `warm` of them are kept idle, `dials` are under way at a time;
    `adopted` bounds agents' connections that are passed on from here, `adopting` of them are dialled for at a time.
    `unproved` and `dialling_unproved` are the same for hellos that prove nothing before the other replica reads them:
    of own links and of enrolments. Others never wait for those.
    """

    link: LinkLimits = field(default_factory=_limits)
    timing: Timing = field(default_factory=_timing)
    links: int = 2_000
    warm: int = 2
    dials: int = 8
    adopted: int = 20_000
    adopting: int = 16
    unproved: int = 64
    """Those that are not dialled for yet, or just now."""
    dialling_unproved: int = 4
    dial: float = 5.0
    """Seconds for a connection and its greeting."""
    pause: float = 0.5
    """Seconds after an own link that could not be dialled."""
    tidy: float = 10.0
    """Seconds between looks at idle own links beyond the warm ones."""
    first: float = 0.05
    """Seconds before the second attempt to reach a replica; ..."""
    most: float = 2.0
    """... the bound doubles up to this, and a half of each is by chance."""
