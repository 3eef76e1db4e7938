"""Who may change which grant. Platform administrators any; an owner, who holds a grant with `delegate`, what is
contained in that grant; nobody else. Pure.

No further than one has it oneself: only what is proved counts. A delegated grant comes after all others, is in force
only as long as its maker could make it again, and is as whom its maker's grant says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from auth.decision import Impersonable
from auth.grants.access import DISCOVERY, Access
from auth.grants.grant import Grant
from auth.grants.grants import Grants
from auth.grants.labelselector import Labels
from auth.grants.patterns import all_within, may_meet
from auth.identity import Identity

DEPTH = 8
"""How often what was delegated may be delegated on."""
_TRIES = 8


MOST_TRIED = 32
"""Of a maker's grants with delegate: each change of a grant looks at all of them, for every grant that they made."""


def may_change(
    identity: Identity,
    old: Grant | None,
    new: Grant | None,
    grants: Grants,
    admin_groups: frozenset[str],
    now: float,
) -> str:
    """Why this user may not turn one stored grant into another (None: there is none), or empty. `grants` are those in
    force.

    An owner changes delegated grants alone: whatever an administrator wrote stays as it is, even about the owner's
    own cluster, and its name is taken.
    """
    if is_administrator(identity, admin_groups):
        return ""
    if old is not None and old.maker is None:
        return f"grant {old.name!r} is an administrator's"
    if new is not None and old is None and any(grant.name == new.name for grant in grants.grants):
        return f"there is a grant {new.name!r} already"
    for grant in filter(None, (old, new)):
        if why := undelegated(identity, grant, grants, now):
            return why
    return ""


def is_administrator(identity: Identity, admin_groups: frozenset[str]) -> bool:
    """Never a managed cluster's own service account, whatever groups its cluster says it has."""
    return not identity.cluster and not admin_groups.isdisjoint(identity.groups)


def manages(
    identity: Identity, cluster: str, labels: Labels, grants: Grants, admin_groups: frozenset[str], now: float
) -> bool:
    """Whether a user is the owner of a cluster, or an administrator, to whom all belong."""
    return is_administrator(identity, admin_groups) or any(
        grant.covers(cluster, labels) for grant in owned(identity, grants, now)
    )


def owned(identity: Identity, grants: Grants, now: float) -> list[Grant]:
    """The grants in force by which this user may delegate, in order."""
    if identity.cluster:
        return []
    return [grant for grant in grants.held_by(identity) if grant.delegate and grant.expires > now]


def undelegated(identity: Identity, inner: Grant, grants: Grants, now: float) -> str:
    """Why none of a user's grants in force lets him grant `inner`, or empty.

    Of his grants the first that matches decides: one that stands before and makes somebody else of him bounds what the
    later one gives.
    """
    why = "you hold no grant with delegate: true"
    before: list[Grant] = []
    tried = 0
    for outer in grants.held_by(identity) if not identity.cluster else ():
        if outer.expires <= now:
            continue
        if outer.delegate:
            tried += 1
            if tried > MOST_TRIED:
                return f"you hold more than {MOST_TRIED} grants with delegate: true: use patterns or labels instead"
            reason = _unusable(identity, outer) or contained(inner, outer) or _bounded(identity, inner, before)
            if not reason:
                return ""
            why = f"it goes beyond your grant {outer.name!r}: {reason}"
        before.append(outer)
    return why


def in_force(others: Sequence[Grant], delegated: Sequence[Grant], now: float) -> tuple[list[Grant], dict[str, str]]:
    """The delegated grants that their makers could make now, in order; and of each other one, by name, why not.

    Owners may have delegated to owners, `DEPTH` deep: what hangs on a grant that is not in force is not, and no two
    hold each other up. So they are counted in from nothing; where a later one bounds its maker, what that maker made is
    left out, and the counting begins again. Where that takes too often, only what hangs on nobody's delegated grant
    counts, which no other bounds: owners must not keep a server busy.
    """
    left = [grant for grant in delegated if grant.maker is not None]
    for _ in range(_TRIES):
        kept = _counted(others, left, now)
        refused = _refused([*others, *kept], kept, now)
        if not refused:
            break
        left = [grant for grant in left if grant.name not in refused]
    else:
        kept = _counted(others, delegated, now, depth=1)
    names = {grant.name for grant in kept}
    why = _refused([*others, *kept], [grant for grant in delegated if grant.name not in names], now)
    lost = {grant.name: "it hangs on grants of others that bound each other" for grant in delegated}
    return kept, {name: why.get(name, reason) for name, reason in lost.items() if name not in names}


def _counted(others: Sequence[Grant], delegated: Sequence[Grant], now: float, depth: int = DEPTH) -> list[Grant]:
    kept: list[Grant] = []
    for _ in range(depth):
        known = {grant.name for grant in kept}
        refused = _refused([*others, *kept], [grant for grant in delegated if grant.name not in known], now)
        more = [grant for grant in delegated if grant.name not in refused]
        if len(more) == len(kept):
            break
        kept = more
    return kept


def _refused(grants: Sequence[Grant], delegated: Sequence[Grant], now: float) -> dict[str, str]:
    known = Grants(grants)
    why = {}
    for grant in delegated:
        if grant.maker is not None and (reason := undelegated(grant.maker.identity, grant, known, now)):
            why[grant.name] = f"{grant.maker.user!r} could not make it now: {reason}"
    return why


def contained(inner: Grant, outer: Grant) -> str:
    """Why `inner` might allow something that `outer` does not, or empty. Subjects do not matter; clusters, requests,
    identities, rights and time do.
    """
    if why := _clusters(inner, outer) or _access(inner.access, outer.access) or _identities(inner, outer):
        return why
    if inner.pass_through and not outer.pass_through:
        return "passThrough is more than it allows"
    if inner.delegate and not outer.delegate:
        return "delegate is more than it allows"
    return "it ends later" if inner.expires > outer.expires else ""


def _clusters(inner: Grant, outer: Grant) -> str:
    if not outer.clusters and outer.selector is None:
        return "it covers no cluster"
    if outer.clusters and not (inner.clusters and all_within(inner.clusters, outer.clusters)):
        return f"clusters must be within {', '.join(outer.clusters)}"
    if outer.selector is not None and not (inner.selector is not None and inner.selector.within(outer.selector)):
        return "clusterSelector must imply its own"
    return ""


def _access(inner: Access | None, outer: Access | None) -> str:
    if outer is None:
        return ""
    if inner is None:
        return "it needs an access, as that has one"
    if not _subset(inner.all_verbs, outer.all_verbs):
        return f"verbs must be of {', '.join(sorted(outer.all_verbs or ()))}"
    if outer.resources is not None:
        patterns = inner.resources
        if patterns is None or not all(any(one.within(other) for other in outer.resources) for one in patterns):
            return f"resources must be of {', '.join(map(str, outer.resources))}"
    if outer.namespaces is not None and not (inner.namespaces and all_within(inner.namespaces, outer.namespaces)):
        return f"namespaces must be within {', '.join(outer.namespaces)}"
    if not all_within(inner.urls, (*outer.urls, *DISCOVERY)):
        return f"nonResourceURLs must be within {', '.join(outer.urls) or 'discovery and health'}"
    if not inner.kinds <= outer.kinds:
        return f"interactive must be of {', '.join(sorted(outer.kinds)) or 'nothing: false'}"
    return ""


def _identities(inner: Grant, outer: Grant) -> str:
    if inner.impersonate != outer.impersonate:
        return "impersonate must be the same"
    if not inner.allow_protected <= outer.allow_protected:
        return "allowProtected is more than it allows"
    if not _impersonable(inner.allow_user_impersonation, outer.allow_user_impersonation):
        return "allowUserImpersonation is more than it allows"
    return ""


def _impersonable(inner: bool | Impersonable, outer: bool | Impersonable) -> bool:
    if inner is False or outer is True:
        return True
    if not isinstance(inner, Impersonable) or not isinstance(outer, Impersonable):
        return False
    return all_within(inner.users, outer.users) and all_within(inner.groups, outer.groups)


def _bounded(identity: Identity, inner: Grant, before: Iterable[Grant]) -> str:
    for first in before:
        if _may_meet(inner, first) and (why := _unusable(identity, first) or _identities(inner, first)):
            return f"grant {first.name!r} comes before it for you, and there {why}"
    return ""


def _may_meet(one: Grant, other: Grant) -> bool:
    """Whether both might speak of one cluster."""
    if not one.clusters or not other.clusters:
        return True
    return any(may_meet(a, b) for a in one.clusters for b in other.clusters)


def _unusable(identity: Identity, grant: Grant) -> str:
    decision = grant.decision(identity)
    return "" if decision.allowed else "you cannot use it yourself, since you have a protected identity"


def _subset(inner: frozenset[str] | None, outer: frozenset[str] | None) -> bool:
    """None is everything."""
    return outer is None or (inner is not None and inner <= outer)
