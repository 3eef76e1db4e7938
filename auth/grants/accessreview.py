"""The hub's RBAC as the judge of who reaches which cluster: a SubjectAccessReview on `managedclusters/proxy`.

Whoever may `get` managedclusters/proxy of a name at the hub may read in that cluster, as himself; `create` lets him
create, open a shell and forward ports there (by meaning: a WebSocket exec is a create), and so on: the verb is that of
the request. What the cluster then allows, its own RBAC decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from auth.asking import Asking
from auth.attributes import Attributes
from auth.authenticator import AuthenticationUnavailable
from auth.decision import Decision
from auth.grants.sources import GrantsUnknown
from auth.identity import Identity
from auth.impersonation import own_headers
from tunnel.impersonate import ImpersonationRefused

GROUP: Final = "cluster.open-cluster-management.io"
RULE: Final = "hub:managedclusters/proxy"
_VERBS: Final = {"get": "get", "head": "get", "post": "create", "put": "update", "patch": "patch", "delete": "delete"}
Asked: TypeAlias = tuple[Identity, str, str]
Answered: TypeAlias = tuple[bool, str]
Review = Callable[[Mapping[str, Any]], Awaitable[Answered]]
"""Asks the hub: the spec of a SubjectAccessReview, and (allowed, reason). Raises AuthenticationUnavailable."""


class AccessReviews:
    """Decides as `auth.grants.grants.Decisions` does. A yes is remembered for `ttl` seconds, a no for `denied_ttl`."""

    def __init__(
        self,
        review: Review,
        clock: Callable[[], float],
        *,
        ttl: float = 15.0,
        denied_ttl: float = 5.0,
        capacity: int = 10_000,
    ) -> None:
        async def ask(asked: Asked) -> Answered:
            return await review(_spec(*asked))

        self._asking: Asking[Asked, Answered] = Asking(ask, clock)
        self._ttl = ttl
        self._denied_ttl = denied_ttl
        self._capacity = capacity
        self._known: dict[Asked, tuple[Decision, float, float]] = {}

    def decide(
        self,
        identity: Identity,
        cluster: str,
        now: float,
        request: Attributes | None = None,
        labels: tuple[tuple[str, str], ...] = (),
    ) -> Decision:
        """:raises Undecided: the hub has to be asked. Where it cannot be reached, the answer is no."""
        if identity.cluster:
            return Decision(False, "", "a service account of the cluster itself needs a grant with passThrough")
        asked = identity, cluster, _verb(request)
        decision, since, until = self._known.get(asked, (None, 0.0, 0.0))
        # The lower bound is for a clock that was set back: what it remembers of its future does not count.
        if decision is None or not since <= now < until:
            decision = self._remember(asked, now, self._answer(asked))
        return decision

    def _answer(self, asked: Asked) -> Decision:
        identity, cluster, verb = asked
        allowed, reason = self._asking.get(asked)
        if not allowed:
            why = f": {reason}" if reason else ""
            text = f"the hub does not let {identity.user!r} {verb} managedclusters/proxy of {cluster!r}{why}"
            return Decision(False, RULE, text)
        try:
            headers = own_headers(identity, None, frozenset())
        except ImpersonationRefused as refused:
            return Decision(False, RULE, f"the hub lets {identity.user!r} reach {cluster!r}, but {refused}")
        return Decision(True, RULE, f"allowed by the hub's RBAC ({verb} managedclusters/proxy)", headers)

    def _remember(self, asked: Asked, now: float, decision: Decision) -> Decision:
        if len(self._known) >= self._capacity:
            del self._known[next(iter(self._known))]
        self._known[asked] = decision, now, now + (self._ttl if decision.allowed else self._denied_ttl)
        return decision


class Either:
    """Several who decide, in order: the first that allows decides; else the first one's no counts."""

    def __init__(self, *deciders: Any) -> None:
        self._deciders = deciders

    def decide(
        self,
        identity: Identity,
        cluster: str,
        now: float,
        request: Attributes | None = None,
        labels: tuple[tuple[str, str], ...] = (),
    ) -> Decision:
        """See `auth.grants.grants.Decisions.decide`. One that cannot be asked just now allows nothing. While grants are
        not known yet nobody decides in their place: they might make somebody else of the user.
        """
        no: Decision | None = None
        away: AuthenticationUnavailable | None = None
        for decider in self._deciders:
            try:
                decision: Decision = decider.decide(identity, cluster, now, request, labels)
            except GrantsUnknown:
                raise
            except AuthenticationUnavailable as unavailable:
                away = unavailable
                continue
            if decision.allowed:
                return decision
            no = no or decision
        if away is not None:
            raise away
        return no or Decision(False, "", "nobody decides who may reach a cluster: see the settings of authorisation")


def _verb(request: Attributes | None) -> str:
    if request is None:
        return "get"
    if request.interactive:  # a node's proxy and a machine's console are GETs too, and an ephemeral container a PATCH
        return "create"
    return request.verb if request.is_resource_request else _VERBS.get(request.verb, request.verb)


def _spec(identity: Identity, cluster: str, verb: str) -> dict[str, Any]:
    return {
        "user": identity.user,
        "groups": [*identity.groups, *([] if "system:authenticated" in identity.groups else ["system:authenticated"])],
        "uid": identity.uid,
        "extra": {key: list(values) for key, values in identity.extra},
        "resourceAttributes": {
            "group": GROUP,
            "resource": "managedclusters",
            "subresource": "proxy",
            "name": cluster,
            "verb": verb,
        },
    }
