"""Bounds and patience of the users' door, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tunnel.limits import KIB, HeadLimits


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What one listener's connections may hold. Sizes are bytes."""

    connections: int = 20_000
    """25 kB each while idle, twice that after some traffic: about a gigabyte at most."""
    held: int = 64 * KIB
    """Of pipelined requests, and of what a client sends before its 101; then (one read later) its socket is paused."""
    write_buffer: int = 64 * KIB
    """The transport's high-water mark. A reader that has stopped holds this much, and its exchange's credit."""
    discarded: int = 1024 * KIB
    """What a client may still send after an answer that ended its connection; stopping earlier could lose that answer.
    """
    large_body: int = 64 * KIB
    """A longer request body asks for an own link."""
    head: HeadLimits = field(default_factory=HeadLimits)


@dataclass(frozen=True, slots=True)
class DoorTimeouts:
    """Seconds. One sweep a listener drives all but the handshake's."""

    handshake: float = 10.0
    head: float = 10.0
    """From a head's first byte to its last (slowloris); and for each next request, until one was authenticated."""
    idle: float = 180.0
    """Between requests. Longer than client-go's 90 s, so that it is the client who closes, and no request meets a
    close.
    """
    progress: float = 60.0
    """Without a byte of a request's body, while we are reading."""
    linger: float = 2.0
    """For a client to stop sending after an answer that ends its connection, and to close when it has got all of it."""
    tail: ClassVar[float] = 30.0
    """Without a byte taken of what was written before a close. A pager may stand still at the end of a stream."""
    flush: float = 10.0
    """For the last bytes of a hijacked stream whose client has gone."""
    recheck: float = 5.0
    """How often a live stream's user is authenticated and authorised anew.

    What is taken away ends its streams within 30 s: an answer is remembered for 10 (`wiring.authentication.KNOWN_FOR`),
    5 pass until the next look, 5 while it asks whoever knows (`settling.PATIENCE`), and the hub remembers tokens for 10
    itself. What Kulvert keeps or reads (grants, revocations, authorities) counts at the first look after it was read.
    """
    sweep: float = 1.0
    lameduck: float = 0.0
    """For load balancers to notice that this server is not ready any more: until then it accepts connections."""
    drain: float = 25.0
    """For what is under way, hijacked streams and followed logs among it; watches end at once, and are begun elsewhere.
    Shorter than Kubernetes' grace of 30 s, after which what is left would be killed, with its audit records.
    """
