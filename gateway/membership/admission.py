"""Whether an agent that asks gets a certificate: one decision, from facts, without time or I/O of its own.

Accepted is a *cluster id* for a name, by an administrator or a policy; after that, agents of this cluster that hold a
token for it get certificates without further ado, so that a deployment may have replicas. The exception: a token for
any cluster is in many hands, so with one a further key of an accepted cluster waits for an administrator as well, or
one cluster's owner could enrol as another cluster whose id he has learnt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from auth.jointoken import StoredJoinToken
from gateway.membership.enrolments import Choice, State
from gateway.membership.registry import Cluster
from gateway.membership.takeover import seconds_until_free


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and what is known about it. `enrolled`: this very key has a certificate of this very cluster;
    `last_connected`: when an agent of the cluster that has the name was.
    """

    name: str
    cluster_id: str
    token: StoredJoinToken
    cluster: Cluster | None
    usable: bool = True
    choice: Choice = Choice.NONE
    enrolled: bool = False
    last_connected: float = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What the server's settings say: names that need no administrator, and the grace period in seconds."""

    auto_accept: Iterable[str] = ()
    takeover_grace: float = 60.0

    def accepts(self, name: str) -> bool:
        """Whether requests for this name need no administrator."""
        return any(fnmatchcase(name, pattern) for pattern in self.auto_accept)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`state` ACCEPTED: issue, after the name was given to this cluster where `gives_name`. Otherwise `message` says
    why not; `reason` is the word of `tunnel.handshake.Refused`, and `retry_after` when to ask again (0: never mind).
    """

    state: State
    message: str = ""
    reason: str = ""
    retry_after: int = 0
    gives_name: bool = False


RETRY = 10
"""Seconds after which who waits should ask again."""
RETRY_DENIED = 300


def decide(asked: Asked, policy: Policy, now: float) -> Verdict:
    """See the module."""
    refused = _refused(asked)
    if refused is not None:
        return refused
    cluster = asked.cluster
    if cluster is not None and cluster.uid == asked.cluster_id:
        return _further(asked)
    if cluster is None or cluster.uid is None:
        accepted = asked.choice is Choice.ACCEPTED or asked.token.accept or policy.accepts(asked.name)
        return Verdict(State.ACCEPTED, gives_name=True) if accepted else _pending(asked.name)
    return _second(asked, cluster, policy, now)


def _refused(asked: Asked) -> Verdict | None:
    token, cluster = asked.token, asked.cluster
    if not token.fits(asked.name, cluster.labels if cluster else None):
        return _denied(f"the join token is not for cluster {asked.name!r}", "token")
    if cluster is None and token.cluster:
        command = f"`kulvert cluster add {asked.name}`"
        return _denied(f"cluster {asked.name!r} is not registered: add it with {command}", "cluster", RETRY)
    if not asked.usable:
        return _denied("the join token has been used up: make a new one", "token")
    if cluster is not None and cluster.phase:
        return _denied(f"cluster {asked.name!r} is being removed", "cluster", RETRY)
    if cluster is not None and cluster.denied:
        return _denied(f"the hub does not accept cluster {asked.name!r} (hubAcceptsClient)", "cluster", RETRY)
    if asked.choice is Choice.DENIED:
        return _denied("an administrator has denied this request", "denied")
    return None


def _further(asked: Asked) -> Verdict:
    """A further agent of the cluster that has the name, or the same one again."""
    if asked.token.cluster or asked.enrolled or asked.choice is Choice.ACCEPTED:
        return Verdict(State.ACCEPTED)
    return _pending(asked.name)


def _second(asked: Asked, cluster: Cluster, policy: Policy, now: float) -> Verdict:
    """Another cluster under a name in use. A token accepts one cluster, not two: to accept a second one by itself, it
    must have been made after the first had the name. With one that is not for this name alone no policy does: it is in
    many hands, each of which could have the name of whoever is away for a while.
    """
    token = asked.token
    by_policy = policy.accepts(asked.name) or (token.accept and token.created > cluster.accepted)
    if not (asked.choice is Choice.ACCEPTED or (token.cluster and by_policy)):
        command = f"`kulvert cluster accept {asked.name} --id {asked.cluster_id}`"
        message = f"the name {asked.name!r} is another cluster's, and nobody has accepted this one: {command}"
        return Verdict(State.PENDING, message, "pending", RETRY)
    left = seconds_until_free(asked.last_connected, now, policy.takeover_grace)
    if left <= 0:
        return Verdict(State.ACCEPTED, gives_name=True)
    message = f"the name {asked.name!r} is another cluster's: it is free once all its agents have been gone for"
    return Verdict(State.WAITING, f"{message} {policy.takeover_grace:g} s", "pending", RETRY)


def _pending(name: str) -> Verdict:
    message = f"an administrator has to accept this cluster: `kulvert cluster accept {name}`"
    return Verdict(State.PENDING, message, "pending", RETRY)


def _denied(message: str, reason: str, retry_after: int = RETRY_DENIED) -> Verdict:
    return Verdict(State.DENIED, message, reason, retry_after)
