"""Grants from several sources, in one order: each source's own in the sources' order, then all that were delegated.

Each source says what it has, anew and as a whole. Until every one has spoken nothing is allowed: of grants the first
decides, and it might be one of those that are still missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from auth.attributes import Attributes
from auth.authenticator import AuthenticationUnavailable
from auth.decision import Decision
from auth.grants.delegation import in_force
from auth.grants.grant import Grant
from auth.grants.grants import Decisions, Grants
from auth.grants.labelselector import Labels
from auth.identity import Identity


class GrantsUnknown(AuthenticationUnavailable):
    """Nobody may decide in the place of grants that are not known yet: they might make somebody else of the user."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A grant, where it is from, and why it is not in force, or empty."""

    source: str
    grant: Grant
    problem: str = ""


class GrantSources:
    """Decides by the newest grants of all sources (`gateway.access.Decide`). `names` are the sources, in order."""

    def __init__(self, *names: str, capacity: int = 10_000) -> None:
        self._sources: dict[str, tuple[Grant, ...] | None] = dict.fromkeys(names)
        self._problems: dict[str, str] = {}
        self._capacity = capacity
        self._decisions: Decisions | None = None
        self.listed: tuple[Listed, ...] = ()

    @property
    def grants(self) -> Grants:
        """Those in force, in order."""
        return self._decisions.grants if self._decisions else Grants(())

    @property
    def problem(self) -> str | None:
        """What of the sources is not in force, or not known; None where all is well."""
        waiting = [f"{name}: the grants are not known yet" for name, grants in self._sources.items() if grants is None]
        told = [f"{name}: {problem}" for name, problem in self._problems.items()]
        return "; ".join([*waiting, *told, *self._idle()]) or None

    def changed(self, source: str, grants: Iterable[Grant], now: float, problem: str | None = None) -> None:
        """A source has these grants from now on. `problem` says what it could not give."""
        if source not in self._sources:
            raise LookupError(f"{source!r} is no source of grants")
        self._sources[source] = tuple(grants)
        self.failed(source, problem)
        self._merge(now)

    def failed(self, source: str, problem: str | None) -> None:
        """A source is well (None) or not; what it gave before stays in force."""
        if problem is None:
            self._problems.pop(source, None)
        else:
            self._problems[source] = problem

    def decide(
        self, identity: Identity, cluster: str, now: float, request: Attributes | None = None, labels: Labels = ()
    ) -> Decision:
        """See `auth.grants.grants.Grants.decide`. :raises GrantsUnknown: a source has not spoken yet."""
        if self._decisions is None:
            raise GrantsUnknown("the grants are not known yet")
        return self._decisions.decide(identity, cluster, now, request, labels)

    def _merge(self, now: float) -> None:
        listed = self._named()
        kept, why = in_force(
            [one.grant for one in listed if not one.problem and one.grant.maker is None],
            sorted((one.grant for one in listed if not one.problem and one.grant.maker), key=_order),
            now,
        )
        self.listed = tuple(
            Listed(one.source, one.grant, one.problem or (why.get(one.grant.name, "") if one.grant.maker else ""))
            for one in listed
        )
        if None in self._sources.values():
            return
        first = [one.grant for one in self.listed if not one.problem and one.grant.maker is None]
        self._decisions = Decisions(Grants([*first, *kept]), self._capacity)

    def _named(self) -> list[Listed]:
        """A name is one grant's, since the audit log and people go by it; administrators' come first, of any source."""
        known = [(name, grant) for name, grants in self._sources.items() for grant in grants or ()]
        known.sort(key=lambda one: one[1].maker is not None)
        taken: dict[str, str] = {}
        listed = []
        for source, grant in known:
            other = taken.setdefault(grant.name, source)
            problem = "" if other == source else f"there is a grant of this name in {other}, which counts"
            listed.append(Listed(source, grant, problem))
        return listed

    def _idle(self) -> list[str]:
        """Names that two sources use are somebody's mistake; what an owner lost is not."""
        return [
            f"{one.source}: grant {one.grant.name!r} is not in force: {one.problem}"
            for one in self.listed
            if one.problem and one.grant.maker is None
        ]


def _order(grant: Grant) -> tuple[int, str]:
    return grant.priority, grant.name
