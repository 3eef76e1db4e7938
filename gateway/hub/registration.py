"""ManagedClusters and the registry, kept alike: what the next step for one name is. Pure; no loop can come of it, since
each step makes the two sides, or what both know of each other, more alike, and no two steps undo each other.

    what                    who wins
    there is a cluster      either makes it; a deletion on either side removes it in order, and nothing else does: an
                            object that has vanished without its finalizer's leave is made again
    its labels              the object's, but that on the first sight what the registry has more is added to it
    whether it is accepted  either accepts; the hub takes it back (hubAcceptsClient: false), the registry removes
    which cluster it is     the registry, once one is accepted

What both sides last knew of an acceptance is in the annotation `kulvert.dev/accepted`, which tells a hub that has taken
it back from one that has not heard of it yet. It is written before the registry accepts what the hub asks for. Since
whoever may update the object can take the annotation away, the registry remembers it as well (`Cluster.hub_accepted`):
what either of the two says the hub has accepted, it has taken back where it accepts it no more.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.hub.clusters import Declared
from gateway.membership.cluster import Cluster
from gateway.membership.removals import Removal


class Do(enum.Enum):
    """A step. The upper ones write to the hub, the lower ones to the registry."""

    CREATE = "create the object"
    HOLD = "put the finalizer on it"
    MARK = "write what both know of its acceptance"
    OPEN = "accept it at the hub"
    DELETE = "delete the object"
    RELEASE = "take the finalizer off"

    REGISTER = "register the name"
    RELABEL = "take its labels over"
    ACCEPT = "accept the cluster that asks"
    NOTE = "remember that the hub has accepted it"
    DENY = "keep it out"
    ADMIT = "let it in again"
    REMOVE = "remove the cluster"


AT_THE_HUB = frozenset({Do.CREATE, Do.HOLD, Do.MARK, Do.OPEN, Do.DELETE, Do.RELEASE})


@dataclass(frozen=True, slots=True)
class Step:
    """`uid` is the cluster id that MARK, OPEN, ACCEPT and NOTE are about."""

    do: Do
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What the server knows of a name. `asking` are the ids of clusters that ask for it and that nobody has denied."""

    cluster: Cluster | None = None
    removal: Removal | None = None
    asking: tuple[str, ...] = ()

    @property
    def accepted(self) -> str:
        """The id of the cluster that is let in."""
        cluster = self.cluster
        return cluster.uid if cluster is not None and cluster.uid is not None and not cluster.denied else ""


def next_step(found: Declared | None, known: Known) -> Step | None:
    """None: both are alike, or there is somebody to wait for."""
    cluster = known.cluster
    if found is None:
        return Step(Do.CREATE, known.accepted) if cluster is not None and not cluster.phase else None
    if cluster is None:
        return _without_cluster(found, known)
    if found.deleting:
        return _deleting(found, cluster, known)
    if cluster.phase:
        return Step(Do.DELETE) if found.held else None
    if not found.held:
        return Step(Do.HOLD)
    if dict(cluster.labels) != dict(found.labels):
        return Step(Do.RELABEL)
    return _acceptance(found, cluster, known)


def _without_cluster(found: Declared, known: Known) -> Step | None:
    if found.deleting:
        return Step(Do.RELEASE) if found.held else None
    if not found.held:
        return Step(Do.HOLD)
    finished = known.removal.finished if known.removal is not None else None
    if finished is not None and finished >= found.since:
        return Step(Do.DELETE)  # the hub has not heard of it
    return Step(Do.REGISTER)


def _deleting(found: Declared, cluster: Cluster, known: Known) -> Step | None:
    """An object that was never taken up may go: it is made again, for the cluster is there."""
    if not found.held:
        return None
    forces = found.forced and known.removal is not None and not known.removal.force
    return Step(Do.REMOVE) if not cluster.phase or forces else None


def _acceptance(found: Declared, cluster: Cluster, known: Known) -> Step | None:
    accepted = known.accepted
    if not found.accepts:
        if not accepted:
            return Step(Do.MARK) if found.accepted else None
        knew = accepted in (found.accepted, cluster.hub_accepted)
        return Step(Do.DENY) if knew else Step(Do.OPEN, accepted)
    if cluster.denied:
        return Step(Do.ADMIT)
    if not accepted:
        chosen = choice(found, known.asking)
        if not chosen:
            return None
        return Step(Do.ACCEPT, chosen) if found.accepted == chosen else Step(Do.MARK, chosen)
    if cluster.hub_accepted != accepted:
        return Step(Do.NOTE, accepted)
    if found.accepted != accepted or found.wanted not in ("", accepted):
        return Step(Do.MARK, accepted)
    return None


def choice(found: Declared, asking: Iterable[str]) -> str:
    """Who is accepted: the one that the annotation names, or the only one that asks; an empty text: nobody yet. Where a
    kubeconfig is to decide it, it does.
    """
    if found.secret:
        return ""
    ids = tuple(asking)
    return found.wanted or (ids[0] if len(ids) == 1 else "")


def problem(found: Declared, known: Known) -> str:
    """What an administrator has to do before it goes on, or an empty text."""
    if not found.accepts or found.secret or found.deleting or known.accepted or len(known.asking) < 2 or found.wanted:
        return ""
    ids = ", ".join(sorted(known.asking)[:4])
    return f"several clusters ask for this name: choose one by the annotation kulvert.dev/cluster-id ({ids})"
