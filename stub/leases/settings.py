"""How long Leases count, how many shards there are, and how fast they move."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

JITTER: Final = 1.2
"""client-go's factor: a deadline must leave room for one try that comes so much later than the retry period."""
MOST_SHARDS: Final = 1024
_LONGEST: Final = 3600
_IDENTITY: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,198}[a-z0-9])?")
"""What a pod can be called, as far as a Lease can be called after it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One kind of Lease, in seconds. Source: client-go's LeaseDuration, RenewDeadline, RetryPeriod."""

    duration: float
    """Observers wait so long after the last change that they saw."""
    deadline: float
    """A holder stops so long after the start of its last successful renewal."""
    retry: float
    """Between two renewals, and between two looks."""

    @property
    def patience(self) -> float:
        """For one call: two that fail still leave a holder in time."""
        return min(self.retry, (self.deadline - self.retry) / 2)

    def problems(self, what: str) -> Iterator[str]:
        """What cannot be, by client-go's rules; `what` is the kind of Lease."""
        if not 1 <= self.duration <= _LONGEST or self.duration % 1:
            yield f"the {what} Lease's duration must be whole seconds from 1 to {_LONGEST}, as Kubernetes keeps it"
        if not self.retry > 0:
            yield f"the {what} Lease's retry period must be above 0"
        if not self.duration > self.deadline:
            yield f"the {what} Lease's duration must be longer than its renew deadline: one stops before another begins"
        if not self.deadline > JITTER * self.retry:
            yield f"the {what} Lease's renew deadline must be longer than {JITTER} × its retry period"


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """`leases.…`. All replicas of an installation must say the same."""

    lease: str = "kulvert"
    """The leader's Lease; the others are called after it."""
    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    replica_duration: float = 4.0
    """Sharded mode: of each replica's own Lease, on which its shards hang."""
    replica_renew_deadline: float = 3.0
    replica_retry_period: float = 1.0
    shards: int = 64
    """Clusters are dealt into so many; a shard is what an owner has."""
    moving: int = 1
    """How many shards a replica gives to better ones in one step."""
    step: float = 1.0
    settle: float = 10.0
    """A replica is given shards only when it has been there for so long."""
    patience: float = 4.0
    """A shard that its best replica does not claim for so long may be claimed by the second best, and so on. Whoever
    had it, and lost it to a hand that deleted it unseen, has looked again by then, or has stopped.
    """
    tidy: float = 60.0
    """A replica's Lease that has been nobody's for so long is deleted."""

    @property
    def leader(self) -> Timing:
        """Of the leader's Lease, and of everything in standby mode."""
        return Timing(self.duration, self.renew_deadline, self.retry_period)

    @property
    def replica(self) -> Timing:
        """Of a replica's Lease in sharded mode."""
        return Timing(self.replica_duration, self.replica_renew_deadline, self.replica_retry_period)

    @property
    def replica_prefix(self) -> str:
        """Followed by an identity."""
        return f"{self.lease}-replica-"

    @property
    def shard_prefix(self) -> str:
        """Followed by a number from 0."""
        return f"{self.lease}-shard-"

    def problems(self) -> Iterator[str]:
        """What cannot be, as texts for the configuration's reader."""
        yield from self.leader.problems("leader's")
        yield from self.replica.problems("replica's")
        if re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", self.lease) is None:
            yield "the Lease's name must be at most 32 small letters, digits and dashes"
        if not 1 <= self.shards <= MOST_SHARDS:
            yield f"shards must be from 1 to {MOST_SHARDS}"
        if self.moving < 1 or not self.step > 0:
            yield "a step must move at least 1 shard, and take more than 0 s: a new replica would never get any"
        if self.settle < 0 or self.tidy < self.duration:
            yield "settle must not be negative, tidy must be at least the Lease's duration"
        if self.patience < self.replica_renew_deadline:
            yield "patience must be at least replicaRenewDeadline"


def identity_problem(identity: str) -> str | None:
    """Why a replica cannot be called so."""
    if _IDENTITY.fullmatch(identity) is None:
        return "a replica's identity must be a pod's name: at most 200 small letters, digits, dashes and dots"
    return None
