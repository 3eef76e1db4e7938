"""Which users reach which clusters for what, and as whom. Pure: a set of grants, an identity, a cluster, a time and a
request make a decision.

The first grant, in order, whose subjects, clusters, time and access match decides alone. Grants are not merged: what
two of them allow together is what nobody wrote down. There is no built-in grant, not for `kulvert:admins` either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from auth.attributes import Attributes
from auth.decision import Decision
from auth.grants.access import Matcher
from auth.grants.grant import Grant as Grant
from auth.grants.grant import keys_of
from auth.grants.labelselector import Labels
from auth.identity import Identity


@dataclass(frozen=True, slots=True)
class Rule:
    """A grant that speaks of one user and one cluster, prepared. Without a `matcher` it allows every request."""

    matcher: Matcher | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class Candidates:
    """The rules for one user in a cluster with these labels, in order; they hold until one of them expires, and not
    before they were made, since a clock may be set back.
    """

    rules: tuple[Rule, ...]
    labels: Labels
    since: float
    until: float
    nobody: Decision

    def decide(self, request: Attributes | None) -> Decision:
        """The first rule that matches decides; without a request, the first that lets anything through."""
        for rule in self.rules:
            if rule.matcher is None:
                return rule.decision
            if request is None:
                if rule.decision.allowed:
                    return rule.decision
            elif rule.matcher.refusal(request) is None:
                return rule.decision
        if not self.rules:
            return self.nobody
        return self.rules[0].decision if request is None else self._nearest(request)

    def _nearest(self, request: Attributes) -> Decision:
        """A denial that helps: by the grant of which most held."""
        held, text = -1, ""
        for rule in self.rules:
            refusal = rule.matcher.refusal(request) if rule.matcher else None
            if refusal is not None and refusal.held > held:
                held, text = refusal.held, f"grant {rule.decision.rule!r} comes nearest, which {refusal.reason}"
        return Decision(False, "", f"{self.nobody.reason} for this: {text}")


class Grants:
    """An immutable set of grants, in order, indexed by subject: a decision looks at the grants of this user and these
    groups only.
    """

    def __init__(self, grants: Iterable[Grant]) -> None:
        self.grants = tuple(grants)
        self._matchers = [Matcher(grant.access) if grant.access is not None else None for grant in self.grants]
        self._index: dict[str, list[int]] = {}
        for number, grant in enumerate(self.grants):
            for key in grant.subject_keys():
                self._index.setdefault(key, []).append(number)

    def decide(
        self, identity: Identity, cluster: str, now: float, request: Attributes | None = None, labels: Labels = ()
    ) -> Decision:
        """May this user do this in this cluster, and as whom? Never raises: what cannot be impersonated is not allowed.

        Without a request: may he reach it for anything?
        """
        return self.candidates(identity, cluster, now, labels).decide(request)

    def candidates(self, identity: Identity, cluster: str, now: float, labels: Labels) -> Candidates:
        """What holds for this user in this cluster from now on. What comes after a rule for everything never counts."""
        rules, until, gone = [], math.inf, ""
        for number in self._numbers(identity):
            grant = self.grants[number]
            if (identity.cluster and identity.cluster != cluster) or not grant.covers(cluster, labels):
                continue
            if grant.expires <= now:
                gone = gone or f" (grant {grant.name!r} has expired)"
                continue
            until = min(until, grant.expires)
            rules.append(Rule(self._matchers[number], grant.decision(identity)))
            if rules[-1].matcher is None:
                break
        reason = f"no grant lets {identity.user!r} reach cluster {cluster!r}{gone if not rules else ''}"
        return Candidates(tuple(rules), labels, now, until, Decision(False, "", reason))

    def held_by(self, identity: Identity) -> Iterator[Grant]:
        """The grants that name this user or one of his groups, in order, whatever else they say."""
        return (self.grants[number] for number in self._numbers(identity))

    def _numbers(self, identity: Identity) -> list[int]:
        return sorted({number for key in keys_of(identity) for number in self._index.get(key, ())})


@dataclass(slots=True)
class Decisions:
    """Remembers what one set of grants has for a user in a cluster; a new set of grants gets a new memory. This is what
    a request reads.
    """

    grants: Grants
    capacity: int = 10_000
    _made: dict[tuple[Identity, str], Candidates] = field(default_factory=dict, repr=False)

    def decide(
        self, identity: Identity, cluster: str, now: float, request: Attributes | None = None, labels: Labels = ()
    ) -> Decision:
        """As `Grants.decide`, from memory if possible. The caller has bounded the cluster's name by its grammar."""
        known = self._made.get((identity, cluster))
        if (
            known is None
            or not known.since <= now < known.until
            or (known.labels is not labels and known.labels != labels)
        ):
            known = self._remember(identity, cluster, now, labels)
        return known.decide(request)

    def _remember(self, identity: Identity, cluster: str, now: float, labels: Labels) -> Candidates:
        made = self.grants.candidates(identity, cluster, now, labels)
        if len(self._made) >= self.capacity:
            del self._made[next(iter(self._made))]
        self._made[identity, cluster] = made
        return made
