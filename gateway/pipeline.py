"""What the gateway does with a request, top to bottom: this is the product.

    route → authenticate → authorise → look the cluster up → build the upstream head → impersonate → open → audit

Every step decides synchronously, from memory, and raises `Refused` where it cannot say yes: whatever is not established
(identity, grant, header, audit) ends in a Kubernetes `Status`, never in a request that goes on without it. Where memory
has no answer yet (a token that its issuer has to confirm), a step raises `Undecided`: the request waits, and is decided
again from the beginning.

Who learns what: without credentials one learns nothing (401 everywhere, but for the public paths); without a grant one
learns nothing about a cluster (403, whether it exists or not); with one, a name that does not exist is a 404.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeAlias

from auth import x509
from auth.attributes import Attributes
from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable, Undecided
from auth.decision import Decision
from auth.frontproxy import FrontProxies
from auth.identity import Credentials, Identity
from auth.impersonation import requested_headers
from gateway import failures, status
from gateway.arrivals import Arrivals, Arriving, unsent_of
from gateway.audit.trail import AuditTrail
from gateway.clusters import Clusters
from gateway.credentials import credentials_of, no_front_proxies
from gateway.failures import Refused
from gateway.handover import Caller, ManagementPort
from gateway.membership.conditions import check_registered
from gateway.membership.registry import Cluster
from gateway.metrics import Traffic
from gateway.passage import Outcome, Passage
from gateway.peer import Peer
from gateway.retry import may_retry, repeatable
from gateway.route import Route, Router, proxied_prefix
from gateway.settling import ROUNDS, Settling
from gateway.upstreamhead import sorted_once, upstream_headers
from gateway.withdrawal import Withdrawal
from stub.errors import StubError
from tunnel.block import MAX_LINES
from tunnel.errors import ExchangeReset, HeadError
from tunnel.head import FramingKind, RequestHead, render_response_head
from tunnel.impersonate import ImpersonationRefused, Pairs
from tunnel.ports import Headers, RequestBlock
from tunnel.requestinfo import RequestInfo, request_info

PUBLIC = frozenset((
    b"/healthz", b"/livez", b"/readyz",
    b"/openid/v1/jwks", b"/.well-known/openid-configuration", b"/.well-known/kulvert-configuration",
))  # fmt: skip
"""All that is served without credentials."""
UPGRADES = frozenset((b"spdy/3.1", b"websocket"))
AGAIN = 1
"""Seconds after which a client is to try again what nobody has sent, and what is about to pass."""
_ASKED_IN_VAIN = "those who know do not answer, or too many wait for them"
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


class Pipeline:
    """Serves passages (gateway.door.Handler). `clock` measures, `wall` tells the time that credentials expire by."""

    def __init__(
        self,
        *,
        router: Router,
        authenticator: Authenticate,
        grants: Decide,
        registry: Names,
        clusters: Clusters,
        management: ManagementPort,
        audit: AuditTrail,
        traffic: Traffic,
        settling: Settling,
        arrivals: Arrivals,
        clock: Callable[[], float],
        wall: Callable[[], float],
        large_body: int,
        on_bug: Callable[[BaseException], None],
        front: Callable[[], FrontProxies | None] = no_front_proxies,
        prepare: Callable[[Passage], None] = lambda _passage: None,
    ) -> None:
        """`front` gives the front proxies that are trusted; `prepare` puts a recorder on a session, or refuses it."""
        self._router = router
        self._authenticator = authenticator
        self._grants = grants
        self._registry = registry
        self._clusters = clusters
        self._management = management
        self._audit = audit
        self._traffic = traffic
        self._settling = settling
        self._arrivals = arrivals
        self._clock = clock
        self._wall = wall
        self._large_body = large_body
        self._on_bug = on_bug
        self._front = front
        self._prepare = prepare
        self.date = b""

    # --- a request

    def serve(self, passage: Passage) -> None:
        """See gateway.door.Handler."""
        self._traffic.in_flight += 1
        passage.started, passage.received = self._clock(), self._wall()
        passage.audit_id = self._audit.new_id()
        self._decide(passage, ROUNDS)

    def _decide(self, passage: Passage, rounds: int) -> None:
        if passage.over:
            return  # its client left while it waited
        try:
            self._serve(passage)
        except Arriving as arriving:
            if not self._await_agents(passage, arriving, rounds):
                self._refuse(passage, arriving.otherwise)
        except Undecided as undecided:
            if not rounds or not self._settling.wait(undecided, lambda: self._decide(passage, rounds - 1)):
                self._refuse(passage, Refused(status.AUTHENTICATION_UNAVAILABLE, _ASKED_IN_VAIN, 1))
        except Refused as refused:
            self._refuse(passage, refused)
        except HeadError as refused:
            passage.reason = str(refused)
            self._answer(passage, failures.of_head(refused, passage.audit_id))
        except Exception as error:
            self._on_bug(error)
            passage.bug()

    def _await_agents(self, passage: Passage, arriving: Arriving, rounds: int = ROUNDS) -> bool:
        """Decide anew when they are there, or soon; `gateway.arrivals` says for how long. False: too many wait."""
        return self._settling.wait_for_agents(arriving, lambda: self._decide(passage, rounds))

    def _refuse(self, passage: Passage, refused: Refused) -> None:
        passage.reason = Withdrawal.of(refused, passage.audit_id).reason
        self._answer(passage, refused.answer(passage.audit_id))

    def _serve(self, passage: Passage) -> None:
        head, passage.allowed, passage.decision = passage.head, False, None  # it may have been decided before
        route = passage.route = self._router.route(head.target, head.host or b"")
        if route.cluster is None and head.path in PUBLIC and head.method in (b"GET", b"HEAD"):
            passage.audited = False
            return self._manage(passage, None)
        self._check_audit()
        identity = passage.identity = self._authenticate(passage, route, self._wall())
        _check_origin(head, identity)
        if route.cluster is None:
            return self._manage(passage, identity)
        info = passage.info = _info(head, route)
        decision = passage.decision = self._decision(identity, route.cluster, info, self._wall())
        _check_allowed(decision)
        self._look_up(route.cluster)
        passage.cluster = route.cluster
        _check_upgrade(head)
        passage.block = self._upstream(passage, route, info, identity, decision)
        passage.block.repeatable = repeatable(head, info)
        if info.interactive and passage.tap is None:
            self._prepare(passage)
        passage.allowed = True
        return self._open(passage)

    def _check_audit(self) -> None:
        if not self._audit.ready():
            raise Refused(status.AUDIT_UNAVAILABLE, retry_after=1)

    def _authenticate(self, passage: Passage, route: Route, now: float) -> Identity:
        try:
            credentials = credentials_of(passage.head, passage.client.peer, self._front)
            return self._authenticator.authenticate(credentials, now, route.cluster or "")
        except AuthenticationUnavailable as unavailable:
            raise Refused(status.AUTHENTICATION_UNAVAILABLE, unavailable.reason, retry_after=1) from None
        except AuthenticationFailed as failed:
            raise Refused(status.UNAUTHENTICATED, failed.reason) from None

    def _decision(self, identity: Identity, cluster: str, info: RequestInfo | None, now: float) -> Decision:
        """Kept where it is a no, too: the audit record names the rule."""
        known = self._registry.get(cluster)
        labels = known.labels if known is not None else ()
        try:
            return self._grants.decide(identity, cluster, now, info, labels)
        except AuthenticationUnavailable as unavailable:
            raise Refused(status.AUTHENTICATION_UNAVAILABLE, unavailable.reason, retry_after=1) from None

    def _look_up(self, cluster: str) -> None:
        known = self._registry.get(cluster)
        if known is None:
            raise Refused(status.CLUSTER_NOT_FOUND, cluster)
        check_registered(known)

    def _upstream(
        self, passage: Passage, route: Route, info: RequestInfo, identity: Identity, decision: Decision
    ) -> RequestBlock:
        """The head for the cluster: from lists of what may pass, with the impersonation last."""
        head = passage.head
        proxied = passage.proxied = proxied_prefix(route.target) if info.subresource == "proxy" else b""
        inbound = sorted_once(head, bool(proxied), not route.by_path)
        as_whom = decision.headers
        if decision.pass_through:
            shown = credentials_of(head, passage.client.peer, self._front)
            as_whom = _credential(shown.bearer, inbound.impersonation)
        elif inbound.impersonation:
            as_whom = _requested(passage, identity, decision, inbound.impersonation)
        headers = upstream_headers(
            inbound.headers, head, passage.client.peer.address, passage.audit_id.encode("ascii"), as_whom
        )
        if len(headers) > MAX_LINES:  # the agent would end the link, and with it everybody's requests
            raise HeadError("more headers and groups than the link takes", 431)
        upgrade = head.upgrade is not None
        long = info.is_long_running or upgrade or self._is_large(head)
        ended = head.framing.empty and not upgrade
        return RequestBlock(head.method, route.target, headers, ended, long, upgrade, decision.pass_through)

    def _is_large(self, head: RequestHead) -> bool:
        framing = head.framing
        return framing.kind is FramingKind.CHUNKED or framing.length > self._large_body

    def _open(self, passage: Passage) -> None:
        """Where the cluster's agents are on their way, the request is decided again when one is there."""
        assert passage.block is not None
        try:
            exchange = self._clusters.open(passage.cluster, passage.block, passage)
        except StubError as error:
            raise self._arrivals.refusal(error, passage.started) from None
        passage.tries += 1
        if passage.block.long:
            self._traffic.long_running += passage.tries == 1
        passage.opened(exchange)

    def _manage(self, passage: Passage, identity: Identity | None) -> None:
        """The management application takes this one request."""
        head = passage.head
        if head.upgrade is not None:
            raise Refused(status.UPGRADE_REFUSED, "there is nothing to upgrade to at this path")
        if any(name[:11] == b"impersonate" for name, _ in head.headers):
            raise Refused(status.FORBIDDEN, "Kulvert's own API knows no impersonation: leave out --as")
        passage.allowed = True
        caller = Caller(identity, passage.client.peer.address, passage.audit_id)
        passage.notes = caller.notes
        passage.opened(self._management.open(head, caller, passage))

    # --- what can happen to it later

    def reset(self, passage: Passage, error: ExchangeReset) -> None:
        """See gateway.passage.Owner."""
        if (unsent := unsent_of(error, passage.cluster)) is not None:
            self._return_to_sender(passage, unsent)
            return
        self._traffic.reset(error.hop, error.reason)
        if may_retry(passage, error) and self._retry(passage):
            return
        passage.reason = error.message
        self._answer(passage, failures.of_reset(error, passage.cluster, passage.audit_id))

    def _retry(self, passage: Passage) -> bool:
        try:
            self._open(passage)
        except (Refused, HeadError):
            return False  # nobody else is there: the first failure is what its user should read
        except Arriving as arriving:
            return self._await_agents(passage, arriving)
        self._traffic.retries += 1
        return True

    def _return_to_sender(self, passage: Passage, unsent: StubError) -> None:
        """The replica that holds the cluster did not send it either: as if it had been refused here, but for a large
        body, of which some is gone already: its client has it still.
        """
        if passage.block is not None and passage.block.long:
            self._traffic.long_running -= passage.tries == 1
        passage.tries = 0
        refused = self._arrivals.refusal(unsent, passage.started)
        if not isinstance(refused, Arriving):
            self._refuse(passage, refused)
        elif not passage.returnable or not self._settling.wait(refused, lambda: self._decide(passage, ROUNDS)):
            refused.otherwise.retry_after = refused.otherwise.retry_after or AGAIN
            self._refuse(passage, refused.otherwise)

    def recheck(self, passage: Passage) -> None:
        """A stream lives as long as its user may have it, and as whom it was opened: see gateway.door.Handler."""
        self._recheck(passage, first=True)

    def _recheck(self, passage: Passage, *, first: bool) -> None:
        """`first`: a question may be asked. What is undecided after it is asked again by the next recheck."""
        if passage.identity is None or passage.exchange is None or passage.route is None:
            return
        try:
            self._check_again(passage, passage.route)
        except Undecided as undecided:
            if first:
                self._settling.look_again(undecided, lambda: self._recheck(passage, first=False))
            else:
                self._withdraw(passage, Refused(status.AUTHENTICATION_UNAVAILABLE))
        except Refused as refused:
            self._withdraw(passage, refused)
        except Exception as error:  # others' streams are to be looked at, too; and of this one nobody knows
            self._on_bug(error)
            passage.bug()

    def _check_again(self, passage: Passage, route: Route) -> None:
        now = self._wall()
        identity = self._authenticate(passage, route, now)
        if passage.cluster:
            decision = self._decision(identity, passage.cluster, passage.info, now)
            _check_allowed(decision)
            self._look_up(passage.cluster)
            _check_unchanged(passage.decision, decision)

    def _withdraw(self, passage: Passage, refused: Refused) -> None:
        """An issuer that cannot be reached ends no stream: its user goes on until the credential's own end."""
        identity = passage.identity
        away = refused.failure is status.AUTHENTICATION_UNAVAILABLE
        if not away or identity is None or identity.expires <= self._wall():
            passage.withdraw(refused)

    def began(self, passage: Passage) -> None:
        """See gateway.passage.Owner."""
        if passage.block is not None and passage.block.long:
            self._audit.started(passage)

    def ended(self, passage: Passage, outcome: Outcome) -> None:
        """See gateway.passage.Owner."""
        traffic, block = self._traffic, passage.block
        traffic.in_flight -= 1
        long = block is not None and block.long
        if long and passage.tries:
            traffic.long_running -= 1
        if outcome is Outcome.CUT and passage.error is not None:
            traffic.reset(passage.error.hop, passage.error.reason)
            passage.reason = passage.error.message
        seconds = self._clock() - passage.started
        verb = passage.info.verb if passage.info is not None else passage.head.method.decode("ascii").lower()
        traffic.count(passage.cluster, verb, passage.code, seconds, passage.request_bytes, passage.response_bytes, long)
        if passage.audited:
            # The application authorises by itself, and says so by its answer.
            passage.allowed = passage.allowed and (bool(passage.cluster) or passage.code not in (401, 403))
            self._audit.completed(passage)

    def refusal(self, peer: Peer, refused: HeadError) -> bytes:
        """See gateway.door.Handler."""
        audit_id = self._audit.new_id()
        answer = failures.of_head(refused, audit_id)
        headers: Headers = [
            *answer.headers,
            (b"content-length", b"%d" % len(answer.body)),
            (b"audit-id", audit_id.encode("ascii")),
            (b"date", self.date),
            (b"connection", b"close"),
        ]
        self._traffic.count("", "other", answer.code, 0.0, 0, len(answer.body), False)
        return render_response_head(answer.code, b"", headers) + answer.body

    def _answer(self, passage: Passage, answer: failures.Answer) -> None:
        if passage.route is not None and status.needs_warning(passage.route.target.partition(b"?")[0]):
            answer.warn()
        passage.answer(answer.code, answer.headers, answer.body)


def _info(head: RequestHead, route: Route) -> RequestInfo:
    """A request's meaning. An upgrade that is neither a watch nor a log gives a hand inside something."""
    path, _, query = route.target.partition(b"?")
    info = request_info(head.method.decode("ascii"), path, query)
    if head.upgrade is None or info.interactive or info.verb == "watch" or info.subresource == "log":
        return info
    return replace(info, interactive=True)


def _check_origin(head: RequestHead, identity: Identity) -> None:
    """A browser shows its user's certificate for the pages of any site, and asks nobody before it opens a WebSocket.
    Other clients have no Origin, or say localhost (Go's x/net/websocket).
    """
    origin = head.get(b"origin")
    if head.upgrade is None or origin is None or identity.source != x509.SOURCE:
        return
    site = origin.lower().partition(b"://")[2]
    if site != (head.host or b"").lower() and site.partition(b":")[0] != b"localhost":
        raise Refused(status.FORBIDDEN, "a page of another site asks with your certificate")


def _check_upgrade(head: RequestHead) -> None:
    if head.upgrade is not None and head.upgrade not in UPGRADES:
        raise Refused(status.UPGRADE_REFUSED, "to a protocol that Kubernetes does not use")


def _credential(bearer: str | None, asked: Headers) -> Pairs:
    """A managed cluster's own service account: that cluster's authenticator decides, by the token checked here."""
    if bearer is None or asked:
        raise Refused(status.FORBIDDEN, "a service account of the cluster itself is passed through as it is: no --as")
    return ((b"authorization", b"Bearer " + bearer.encode("ascii")),)


def _check_allowed(decision: Decision) -> None:
    if not decision.allowed:
        raise Refused(status.FORBIDDEN, decision.reason)


def _check_unchanged(before: Decision | None, now: Decision) -> None:
    """The cluster goes on serving a stream as whom it was opened. The rule's name may change, and the rule."""
    if before is not None and _effect(before) != _effect(now):
        raise Refused(status.FORBIDDEN, "your grant has changed: open the stream again")


def _effect(decision: Decision) -> tuple[object, ...]:
    return decision.headers, decision.allow_protected, decision.allow_user_impersonation, decision.pass_through


def _requested(passage: Passage, identity: Identity, decision: Decision, asked: Headers) -> Pairs:
    try:
        passage.impersonated, headers = requested_headers(identity, decision, asked)
    except ImpersonationRefused as refused:
        raise Refused(status.FORBIDDEN, str(refused)) from None
    return headers
