"""What administrators do with clusters, by the command and by the API alike: accept, deny, switch, remove, revoke."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.membership.agentauthority import give_to
from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.enrolments import Choice, Enrolment
from gateway.membership.registry import Cluster, RegistryError
from gateway.membership.removals import Removal
from gateway.membership.stores import Stores


def accept(stores: Stores, name: str, cluster_id: str | None, now: float, key: str | None = "") -> tuple[Cluster, bool]:
    """A cluster that asks may have the name, at once where it is free; whether it has it now. Without an id there must
    be one alone that asks. An id is no secret, so of keys that ask with tokens for any cluster one alone is accepted:
    where several wait, the one whose fingerprint begins with `key`. None accepts the id, and no key.

    :raises RegistryError: nobody asks, or several do, or the cluster is unknown.
    """
    asking, cluster = stores.enrolments.of(name), stores.registry.get(name)
    if cluster_id is None:
        cluster_id = _only_one(name, asking, cluster)
    mine = [one for one in asking if one.cluster_id == cluster_id]
    chosen = _chosen(stores, mine, key) if key is not None else []
    if cluster is not None and cluster.phase:
        raise RegistryError(f"cluster {name!r} is being removed: wait until its name is free")
    if cluster is None:
        cluster = _registered(stores, name, mine, now)
    stores.enrolments.decide((one.key for one in chosen), Choice.ACCEPTED)
    if cluster.denied and cluster.uid == cluster_id:
        cluster = stores.registry.deny(name, False)
    if cluster.uid is None:
        cluster = stores.registry.pin(name, cluster_id, now)
    elif cluster.uid != cluster_id and not mine:
        raise RegistryError(
            f"no cluster of id {cluster_id!r} asks for the name {name!r}, which another one has: "
            f"`kulvert cluster switch {name} --to {cluster_id}` gives it the name without"
        )
    return cluster, cluster.uid == cluster_id


def deny(stores: Stores, name: str, cluster_id: str | None) -> int:
    """Requests for the name, or those of one cluster id, are denied; says how many. :raises RegistryError: none is."""
    found = [one for one in stores.enrolments.of(name) if cluster_id in (None, one.cluster_id)]
    if not found:
        raise RegistryError(f"nobody asks to serve cluster {name!r}: `kulvert cluster requests` shows who asks")
    stores.enrolments.decide((one.key for one in found), Choice.DENIED)
    return len(found)


def switch(stores: Stores, name: str, cluster_id: str, now: float) -> Cluster:
    """The name is this cluster's from now on, whoever is connected. :raises RegistryError: the cluster is unknown."""
    cluster = _existing(stores, name)
    if cluster.phase:
        raise RegistryError(f"cluster {name!r} is being removed")
    if not cluster_id or cluster.uid == cluster_id:
        raise RegistryError(f"cluster {name!r} has the id {cluster.uid!r} already")
    mine = [one for one in stores.enrolments.of(name) if one.cluster_id == cluster_id]
    stores.enrolments.decide([one.key for one in mine if len(mine) == 1], Choice.ACCEPTED)  # else `accept` says which
    return give_to(stores, cluster, cluster_id, now)


def remove(stores: Stores, name: str, by: str, force: bool, now: float) -> Removal:
    """Records the wish, and lets no more users in. :raises RegistryError: the cluster is unknown."""
    _existing(stores, name)
    removal = stores.removals.ask(name, by, force, now)
    stores.registry.terminate(name)
    return removal


def revoke(stores: Stores, name: str, serial: str, now: float) -> IssuedCertificate:
    """A certificate of this cluster's agents, and its key. :raises RegistryError: there is none."""
    found = stores.certificates.get(serial.lower())
    if found is None or found.cluster != name:
        command = f"`kulvert cluster certificates {name}`"
        raise RegistryError(f"cluster {name!r} has no certificate {serial[:64]!r}: {command} shows them")
    return stores.certificates.revoke(found.serial, now)


def _existing(stores: Stores, name: str) -> Cluster:
    cluster = stores.registry.get(name)
    if cluster is None:
        raise RegistryError(f"there is no cluster {name!r}")
    return cluster


def _only_one(name: str, asking: Iterable[Enrolment], cluster: Cluster | None) -> str:
    """Of those that nobody has denied."""
    ids = sorted({one.cluster_id for one in asking if one.choice is not Choice.DENIED})
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise RegistryError(f"several clusters ask for the name {name!r}: choose one by --id ({', '.join(ids)})")
    if cluster is not None and cluster.uid is not None and cluster.denied:
        return cluster.uid
    if cluster is not None and cluster.uid is not None:
        raise RegistryError(f"cluster {name!r} is accepted already, and nobody waits")
    raise RegistryError(
        f"nobody asks to serve cluster {name!r} yet: start its agent, or name the cluster by --id (the UID of its "
        "namespace kube-system)"
    )


def _chosen(stores: Stores, mine: list[Enrolment], key: str) -> list[Enrolment]:
    """Those that are accepted; who was denied is not, but by his key, or where nobody else asks."""
    found = [one for one in mine if one.choice is Choice.NONE] or mine
    if key:
        found = [one for one in mine if one.fingerprint.startswith(key)]
    tokens = {one.token: stores.tokens.get(one.token) for one in found}
    shared = [one for one in found if (token := tokens[one.token]) is None or not token.cluster]
    if len(shared) > 1 or (key and len(found) != 1):
        keys = ", ".join(f"{one.fingerprint[:16]} of {one.agent} at {one.address}" for one in found) or "none of these"
        raise RegistryError(f"it is not clear which key is meant: choose one by --key ({keys})")
    return found


def _registered(stores: Stores, name: str, mine: list[Enrolment], now: float) -> Cluster:
    """A name that a token for any cluster has brought: it gets the token's labels."""
    token = stores.tokens.get(mine[0].token) if mine else None
    if token is None:
        raise RegistryError(f"there is no cluster {name!r}: add it with `kulvert cluster add {name}`")
    made = Cluster(name, None, now, token.labels)
    stores.registry.add(made)
    return made
