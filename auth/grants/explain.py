"""Why a user may do something in a cluster, or not: which grant decided, and what was with the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from auth.attributes import Attributes
from auth.decision import Decision
from auth.grants.access import Matcher, hands
from auth.grants.grant import Grant, keys_of
from auth.grants.grants import Grants
from auth.grants.labelselector import Labels
from auth.grants.sources import Listed
from auth.identity import Identity
from auth.impersonation import HUB
from tunnel.impersonate import Impersonation, read_impersonation

_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that somebody thinks of (auth.attributes.Attributes). With a `path` it is no resource request."""

    verb: str
    path: str = ""
    api_group: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""

    @property
    def is_resource_request(self) -> bool:
        return not self.path

    @property
    def interactive(self) -> bool:
        """As a real one: a node's proxy is, an application's is not."""
        kinds = hands(self.api_group, self.resource, self.subresource, False)
        return bool(kinds) and (self.subresource != "proxy" or self.resource == "nodes")


@dataclass(frozen=True, slots=True)
class Considered:
    """One grant that names the user, and what became of it."""

    rule: str
    source: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`impersonated` is whom the cluster sees; None where it sees nobody, or the user's own credential. `others` is the
    number of grants that do not name the user.
    """

    decision: Decision
    impersonated: Impersonation | None
    considered: tuple[Considered, ...]
    others: int


def explain(
    listed: Iterable[Listed],
    grants: Grants,
    identity: Identity,
    cluster: str,
    now: float,
    request: Attributes,
    labels: Labels = (),
) -> Explanation:
    """`grants` are those in force, `listed` all that there are."""
    decision = grants.decide(identity, cluster, now, request, labels)
    sources = {one.grant.name: one.source for one in listed if not one.problem}
    keys = frozenset(keys_of(identity))
    named = [(grant, sources.get(grant.name, ""), "") for grant in grants.grants if _names(grant, keys)]
    idle = [(one.grant, one.source, one.problem) for one in listed if one.problem and _names(one.grant, keys)]
    considered, decided = [], False
    for grant, source, problem in (*named, *idle):
        verdict = f"not in force: {problem}" if problem else _verdict(grant, identity, cluster, now, request, labels)
        if not verdict:
            verdict, decided = ("would match, but an earlier one decides" if decided else "decides"), True
        considered.append(Considered(grant.name, source, verdict))
    seen = read_impersonation(decision.headers) if decision.headers else None
    return Explanation(decision, seen, tuple(considered), len(grants.grants) - len(named))


def imagined(user: str, groups: tuple[str, ...], cluster: str = "") -> Identity:
    """A user as the grants would see one. A service account's name is the hub's, or that of `cluster`; its groups come
    by themselves.
    """
    if not user.startswith(_ACCOUNT):
        return Identity(user, groups, "", (), "imagined", "", float("inf"))
    namespace = user[len(_ACCOUNT) :].partition(":")[0]
    own = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return Identity(user, tuple(dict.fromkeys((*groups, *own))), "", (), HUB, "", float("inf"), cluster)


def _names(grant: Grant, keys: frozenset[str]) -> bool:
    return not keys.isdisjoint(grant.subject_keys())


def _verdict(grant: Grant, identity: Identity, cluster: str, now: float, request: Attributes, labels: Labels) -> str:
    """Why a grant that names the user does not match, or empty."""
    if identity.cluster and identity.cluster != cluster:
        return "its service account is of another cluster"
    if not grant.covers(cluster, labels):
        return f"does not cover cluster {cluster!r}"
    if grant.expires <= now:
        return "has expired"
    refusal = Matcher(grant.access).refusal(request) if grant.access is not None else None
    return refusal.reason if refusal else ""
