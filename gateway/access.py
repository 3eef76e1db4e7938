"""Who asks, whether he may, and as whom: what a request is asked once, and a live stream again and again.

Everything is answered at once, from memory. What is not a yes is raised: `Refused`, or `Undecided` where memory has no
answer yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from auth.attributes import Attributes
from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable
from auth.decision import Decision
from auth.frontproxy import FrontProxies
from auth.identity import Credentials, Identity
from auth.impersonation import requested_headers
from gateway import status
from gateway.credentials import credentials_of, no_front_proxies
from gateway.failures import Refused
from gateway.membership.conditions import check_registered
from gateway.membership.registry import Cluster
from gateway.route import Route
from tunnel.impersonate import ImpersonationRefused, Pairs
from tunnel.ports import Headers
from tunnel.requestinfo import RequestInfo

if TYPE_CHECKING:
    from gateway.passage import Passage

Labels: TypeAlias = tuple[tuple[str, str], ...]


class Authenticate(Protocol):
    """auth.chain.AuthenticatorChain."""

    def authenticate(self, credentials: Credentials, now: float, cluster: str) -> Identity: ...


class Decide(Protocol):
    """auth.grants.grants.Decisions, or whatever holds the newest of them. Without a request: whether any is allowed."""

    def decide(
        self, identity: Identity, cluster: str, now: float, request: Attributes | None = None, labels: Labels = ()
    ) -> Decision: ...


class Names(Protocol):
    """The part of gateway.membership.registry.ClusterRegistry that a request reads."""

    def get(self, name: str) -> Cluster | None: ...


class Access:
    """See above. `front` gives the front proxies that are trusted. Times are epoch seconds."""

    def __init__(
        self,
        authenticator: Authenticate,
        grants: Decide,
        registry: Names,
        front: Callable[[], FrontProxies | None] = no_front_proxies,
    ) -> None:
        self._authenticator = authenticator
        self._grants = grants
        self._registry = registry
        self._front = front

    def authenticate(self, passage: Passage, route: Route, now: float) -> Identity:
        """Whose the credentials are."""
        try:
            credentials = credentials_of(passage.head, passage.client.peer, self._front)
            return self._authenticator.authenticate(credentials, now, route.cluster or "")
        except AuthenticationUnavailable as unavailable:
            raise Refused(status.AUTHENTICATION_UNAVAILABLE, unavailable.reason, retry_after=1) from None
        except AuthenticationFailed as failed:
            raise Refused(status.UNAUTHENTICATED, failed.reason) from None

    def authorise(self, identity: Identity, cluster: str, info: RequestInfo | None, now: float) -> Decision:
        """Yes or no. A no is to be kept before `check_allowed` raises it: the audit record names the rule."""
        known = self._registry.get(cluster)
        labels = known.labels if known is not None else ()
        try:
            return self._grants.decide(identity, cluster, now, info, labels)
        except AuthenticationUnavailable as unavailable:
            raise Refused(status.AUTHENTICATION_UNAVAILABLE, unavailable.reason, retry_after=1) from None

    def look_up(self, cluster: str) -> None:
        """Only for whom its grant lets know: whether there is such a cluster, and it is in service."""
        known = self._registry.get(cluster)
        if known is None:
            raise Refused(status.CLUSTER_NOT_FOUND, cluster)
        check_registered(known)

    def as_whom(self, passage: Passage, identity: Identity, decision: Decision, asked: Headers) -> Pairs:
        """What the head for the cluster ends with, where the client `asked` for an identity, or keeps his own."""
        if decision.pass_through:
            return _credential(credentials_of(passage.head, passage.client.peer, self._front).bearer, asked)
        try:
            passage.impersonated, headers = requested_headers(identity, decision, asked)
        except ImpersonationRefused as refused:
            raise Refused(status.FORBIDDEN, str(refused)) from None
        return headers


def check_allowed(decision: Decision) -> None:
    """Raises Refused."""
    if not decision.allowed:
        raise Refused(status.FORBIDDEN, decision.reason)


def _credential(bearer: str | None, asked: Headers) -> Pairs:
    """A managed cluster's own service account: that cluster's authenticator decides, by the token checked here."""
    if bearer is None or asked:
        raise Refused(status.FORBIDDEN, "a service account of the cluster itself is passed through as it is: no --as")
    return ((b"authorization", b"Bearer " + bearer.encode("ascii")),)
