"""Which users reach which clusters, and as whom. Pure: a set of grants, an identity and a cluster's name
make a decision.

The first grant, in the order of the file, whose subjects and clusters match decides alone. Grants are not
merged: what two of them allow together is what nobody wrote down. There is no built-in grant, not for
`kulvert:admins` either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from auth.decision import Decision
from auth.identity import Identity
from auth.impersonation import StaticIdentity, own_headers
from tunnel.impersonate import ImpersonationRefused

EVERYBODY = "system:authenticated"


@dataclass(frozen=True, slots=True)
class Grant:
    """One rule. `clusters` are names, or patterns in which `*` stands for any characters."""

    name: str
    users: frozenset[str]
    groups: frozenset[str]
    clusters: tuple[str, ...]
    impersonate: StaticIdentity | None = None
    allow_protected: frozenset[str] = frozenset()
    allow_user_impersonation: bool = False

    def covers(self, cluster: str) -> bool:
        """Whether this grant speaks of a cluster."""
        return any(matches(pattern, cluster) for pattern in self.clusters)


class Grants:
    """An immutable set of grants, indexed by subject: a decision looks at the grants of this user and these
    groups only.
    """

    def __init__(self, grants: Iterable[Grant]) -> None:
        self.grants = tuple(grants)
        self._users = _index((number, grant.users) for number, grant in enumerate(self.grants))
        self._groups = _index((number, grant.groups) for number, grant in enumerate(self.grants))

    def decide(self, identity: Identity, cluster: str) -> Decision:
        """May this user reach this cluster, and as whom? Never raises: what cannot be impersonated is not allowed."""
        for grant in self._of(identity):
            if grant.covers(cluster):
                return _decision(grant, identity)
        return Decision(False, "", f"no grant lets {identity.user!r} reach cluster {cluster!r}")

    def _of(self, identity: Identity) -> Iterator[Grant]:
        numbers = set(self._users.get(identity.user, ()))
        for group in (*identity.groups, EVERYBODY):
            numbers.update(self._groups.get(group, ()))
        return (self.grants[number] for number in sorted(numbers))


@dataclass(slots=True)
class Decisions:
    """Remembers what one set of grants decided; a new set of grants gets a new memory. This is what a request reads."""

    grants: Grants
    capacity: int = 10_000
    _made: dict[tuple[Identity, str], Decision] = field(default_factory=dict, repr=False)

    def decide(self, identity: Identity, cluster: str) -> Decision:
        """As `Grants.decide`, from memory if possible. The caller has bounded the cluster's name by its grammar."""
        decision = self._made.get((identity, cluster))
        if decision is None:
            decision = self.grants.decide(identity, cluster)
            if len(self._made) >= self.capacity:
                del self._made[next(iter(self._made))]
            self._made[identity, cluster] = decision
        return decision


def matches(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern with `*`. Linear, where a regular expression would backtrack."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    if not name.startswith(first) or len(name) < len(first) + len(last) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _decision(grant: Grant, identity: Identity) -> Decision:
    try:
        headers = own_headers(identity, grant.impersonate, grant.allow_protected)
    except ImpersonationRefused as refused:
        return Decision(False, grant.name, f"grant {grant.name!r} matches, but {refused}")
    return Decision(
        True,
        grant.name,
        f"allowed by grant {grant.name!r}",
        headers,
        grant.allow_user_impersonation,
        grant.allow_protected,
    )


def _index(subjects: Iterable[tuple[int, frozenset[str]]]) -> dict[str, list[int]]:
    index: dict[str, list[int]] = {}
    for number, names in subjects:
        for name in names:
            index.setdefault(name, []).append(number)
    return index
