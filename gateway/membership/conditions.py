"""What is so of a cluster, as Kubernetes' conditions: those that Kulvert finds out, and those that others set.

`HubAccepted`: a cluster id was accepted for the name. `Joined`: an agent of it has a certificate. `Available`: an agent
is attached whose API server answered. A gate is a condition type that must be True before users are let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from gateway.failures import Refused
from gateway.status import GATEWAY, Failure

if TYPE_CHECKING:
    from gateway.membership.heartbeats import Renewal
    from gateway.membership.registry import Cluster

HUB_ACCEPTED: Final = "HubAccepted"
JOINED: Final = "Joined"
AVAILABLE: Final = "Available"
BUILT_IN: Final = (HUB_ACCEPTED, JOINED, AVAILABLE)
TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"
GRACE: Final = 5
"""Times a Lease's duration after which the cluster is Unknown, as Open Cluster Management has it."""
_TYPE: Final = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_REASON: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]{0,126}[A-Za-z0-9_])?")
_MAX_MESSAGE: Final = 1024

NOT_REGISTERED: Final = Failure(
    503, "ServiceUnavailable", GATEWAY,
    "Kulvert's gateway lets nobody into this cluster yet: {}; ask who manages the cluster",
)  # fmt: skip
DENIED: Final = Failure(
    403, "Forbidden", GATEWAY,
    "Kulvert's gateway lets nobody into cluster {}: its hub does not accept it (spec.hubAcceptsClient is false)",
)  # fmt: skip
REMOVING: Final = Failure(
    403, "Forbidden", GATEWAY,
    "Kulvert's gateway lets nobody into cluster {} any more: it is being removed",
)  # fmt: skip


class ConditionError(ValueError):
    """A condition cannot be like this; the text says why."""


@dataclass(frozen=True, slots=True)
class Condition:
    """As Kubernetes' metav1.Condition. `changed` is its lastTransitionTime, epoch seconds.

    :raises ConditionError: one of its fields is malformed.
    """

    type: str
    status: str
    reason: str
    message: str = ""
    changed: float = 0.0

    def __post_init__(self) -> None:
        check_type(self.type)
        if self.status not in (TRUE, FALSE, UNKNOWN):
            raise ConditionError(f"a condition's status is {TRUE}, {FALSE} or {UNKNOWN}, not {self.status!r}")
        if not _REASON.fullmatch(self.reason):
            raise ConditionError(f"a condition's reason is one word of letters and digits, not {self.reason[:128]!r}")
        if len(self.message) > _MAX_MESSAGE:
            raise ConditionError(f"a condition's message has at most {_MAX_MESSAGE} characters")

    def shown(self) -> dict[str, str]:
        """As JSON."""
        when = datetime.fromtimestamp(self.changed, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        parts = {"type": self.type, "status": self.status, "reason": self.reason, "message": self.message}
        return parts | {"lastTransitionTime": when}

    def after(self, before: Condition | None, now: float) -> Condition:
        """This one as it follows another: the transition's time stays where the status does."""
        kept = before is not None and before.status == self.status
        return replace(self, changed=before.changed if before is not None and kept else now)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the conditions of a cluster are made of. `asking` are cluster ids that wait to be accepted."""

    certified: bool
    agents: int
    ready: int
    message: str = ""
    asking: tuple[str, ...] = ()
    elsewhere: Condition | None = None
    """Where another replica has its agents: what `availability` says by the heartbeats that reach that one."""


def check_type(name: str) -> str:
    """:raises ConditionError: no condition can have this type."""
    if not _TYPE.fullmatch(name):
        raise ConditionError(f"{name[:128]!r} is no condition type: write a word like Ready, or example.com/Ready")
    return name


def found(cluster: Cluster, facts: Facts, now: float) -> tuple[Condition, ...]:
    """The conditions that Kulvert finds out, after those that the cluster has."""
    before = {one.type: one for one in cluster.conditions}
    made = (_accepted(cluster, facts), _joined(cluster, facts), _available(cluster, facts))
    return tuple(one.after(before.get(one.type), now) for one in made)


def _accepted(cluster: Cluster, facts: Facts) -> Condition:
    if cluster.denied:
        return Condition(HUB_ACCEPTED, FALSE, "Denied", "the hub does not accept it: spec.hubAcceptsClient is false")
    if cluster.uid is not None:
        return Condition(HUB_ACCEPTED, TRUE, "Accepted", f"cluster id {cluster.uid}")
    if facts.asking:
        ids = ", ".join(facts.asking[:4])
        command = f"`kulvert cluster accept {cluster.name}`"
        return Condition(HUB_ACCEPTED, FALSE, "Pending", f"a cluster asks, with id {ids}: {command} lets it in")
    return Condition(HUB_ACCEPTED, FALSE, "NobodyAsked", "no agent has asked to serve this cluster yet")


def _joined(cluster: Cluster, facts: Facts) -> Condition:
    if facts.certified or (cluster.uid is not None and facts.agents):
        return Condition(JOINED, TRUE, "CertificateIssued", "an agent of this cluster has a certificate")
    return Condition(JOINED, FALSE, "NoCertificate", "no agent of this cluster has a certificate in its time")


def availability(renewal: Renewal, before: Condition | None, now: float) -> Condition:
    """`Available` by a heartbeat's Lease, at a time of the clock that `renewal.seen` was taken from. Who has not seen
    it change yet (a leader that has just begun) leaves what was said before as it is, while it may still be so.
    """
    pulse, grace = renewal.pulse, GRACE * renewal.duration
    if now - renewal.seen > grace:
        return Condition(AVAILABLE, UNKNOWN, "NoHeartbeat", f"no heartbeat has come for more than {grace:g} s")
    if not pulse.agents:
        return Condition(AVAILABLE, FALSE, "NoAgent", "no agent is attached")
    if not renewal.fresh:
        return before or Condition(AVAILABLE, UNKNOWN, "NoHeartbeat", "no heartbeat has come yet")
    return _by_count(pulse.agents, pulse.ready, pulse.message)


def _by_count(agents: int, ready: int, message: str) -> Condition:
    if ready:
        return Condition(AVAILABLE, TRUE, "AgentsReady", f"{ready} of {agents} agents reach the API server")
    return Condition(AVAILABLE, FALSE, "ApiServerNotReady", message[:_MAX_MESSAGE] or "not reported yet")


def _available(cluster: Cluster, facts: Facts) -> Condition:
    if facts.agents:
        return _by_count(facts.agents, facts.ready, facts.message)
    if cluster.uid is None:
        return Condition(AVAILABLE, UNKNOWN, "NeverJoined", "no agent has been attached")
    if facts.elsewhere is not None:
        return facts.elsewhere
    return Condition(AVAILABLE, FALSE, "NoAgent", "no agent is attached")


def closed_gates(gates: Iterable[str], conditions: Iterable[Condition]) -> tuple[str, ...]:
    """The gates that are not open: their condition is not True, or nobody has set it."""
    true = {one.type for one in conditions if one.status == TRUE}
    return tuple(gate for gate in gates if gate not in true)


def check_registered(cluster: Cluster) -> None:
    """:raises Refused: users are not let through, administrators among them: a gate is there because the cluster is
    not what it is to be, and a removal because it ends.
    """
    if cluster.phase:
        raise Refused(REMOVING, cluster.name)
    if cluster.denied:
        raise Refused(DENIED, cluster.name)
    if cluster.gates and (closed := closed_gates(cluster.gates, cluster.conditions)):
        raise Refused(NOT_REGISTERED, _told(closed, {one.type: one for one in cluster.conditions}))


def _told(closed: tuple[str, ...], conditions: Mapping[str, Condition]) -> str:
    first = conditions.get(closed[0])
    why = f" ({first.message})" if first is not None and first.message else ""
    return f"its gate {closed[0]} is not True{why}" + (f", nor {', '.join(closed[1:])}" if closed[1:] else "")
