"""What the gateway does with a request, top to bottom: this is the product.

    route → authenticate → authorise → look the cluster up → build the upstream head → impersonate → open → audit

Every step decides synchronously, from memory, and raises `Refused` where it cannot say yes: whatever is not established
(identity, grant, header, audit) ends in a Kubernetes `Status`, never in a request that goes on without it. Where memory
has no answer yet (a token that its issuer has to confirm), a step raises `Undecided`: the request waits, and is decided
again from the beginning. What is live is decided anew every few seconds: `gateway.rechecking`.

Who learns what: without credentials one learns nothing (401 everywhere, but for the public paths); without a grant one
learns nothing about a cluster (403, whether it exists or not); with one, a name that does not exist is a 404.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from auth import x509
from auth.authenticator import Undecided
from auth.decision import Decision
from auth.identity import Identity
from gateway import failures, status
from gateway.access import Access, check_allowed
from gateway.arrivals import Arriving
from gateway.audit.trail import AuditTrail
from gateway.failures import Refused
from gateway.handover import Caller, ManagementPort
from gateway.metrics import Traffic
from gateway.opening import Opening
from gateway.passage import Passage
from gateway.peer import Peer
from gateway.ports import Outcome
from gateway.refusal import refuse, tell, to_no_request
from gateway.retry import repeatable
from gateway.route import Route, Router, proxied_prefix
from gateway.settling import ROUNDS, Settling
from gateway.upstreamhead import sorted_once, upstream_headers
from tunnel.block import MAX_LINES
from tunnel.errors import ExchangeReset, HeadError
from tunnel.head import FramingKind, RequestHead
from tunnel.ports import RequestBlock
from tunnel.requestinfo import RequestInfo, request_info

PUBLIC = frozenset((
    b"/healthz", b"/livez", b"/readyz",
    b"/openid/v1/jwks", b"/.well-known/openid-configuration", b"/.well-known/kulvert-configuration",
))  # fmt: skip
"""All that is served without credentials."""
UPGRADES = frozenset((b"spdy/3.1", b"websocket"))
_ASKED_IN_VAIN = "those who know do not answer, or too many wait for them"


class Pipeline:
    """Serves passages (gateway.door.Handler). `clock` measures, `wall` tells the time that credentials expire by."""

    def __init__(
        self,
        *,
        router: Router,
        access: Access,
        opening: Opening,
        management: ManagementPort,
        audit: AuditTrail,
        traffic: Traffic,
        settling: Settling,
        clock: Callable[[], float],
        wall: Callable[[], float],
        large_body: int,
        on_bug: Callable[[BaseException], None],
        prepare: Callable[[Passage], None] = lambda _passage: None,
    ) -> None:
        """`prepare` puts a recorder on a session, or refuses it."""
        self._router = router
        self._access = access
        self._opening = opening
        self._management = management
        self._audit = audit
        self._traffic = traffic
        self._settling = settling
        self._clock = clock
        self._wall = wall
        self._large_body = large_body
        self._on_bug = on_bug
        self._prepare = prepare
        self.date = b""

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
            if not self._opening.wait(arriving, lambda: self._decide(passage, rounds)):
                refuse(passage, arriving.otherwise)
        except Undecided as undecided:
            if not rounds or not self._settling.wait(undecided, lambda: self._decide(passage, rounds - 1)):
                refuse(passage, Refused(status.AUTHENTICATION_UNAVAILABLE, _ASKED_IN_VAIN, 1))
        except Refused as refused:
            refuse(passage, refused)
        except HeadError as refused:
            passage.reason = str(refused)
            tell(passage, failures.of_head(refused, passage.audit_id))
        except Exception as error:
            self._on_bug(error)
            passage.bug()

    def _serve(self, passage: Passage) -> None:
        head, passage.allowed, passage.decision = passage.head, False, None  # it may have been decided before
        route = passage.route = self._router.route(head.target, head.host or b"")
        if route.cluster is None and head.path in PUBLIC and head.method in (b"GET", b"HEAD"):
            passage.audited = False
            return self._manage(passage, None)
        self._check_audit()
        identity = passage.identity = self._access.authenticate(passage, route, self._wall())
        _check_origin(head, identity)
        if route.cluster is None:
            return self._manage(passage, identity)
        info = passage.info = _info(head, route)
        decision = passage.decision = self._access.authorise(identity, route.cluster, info, self._wall())
        check_allowed(decision)
        self._access.look_up(route.cluster)
        passage.cluster = route.cluster
        _check_upgrade(head)
        passage.block = self._upstream(passage, route, info, identity, decision)
        passage.block.repeatable = repeatable(passage.block, info)
        if info.interactive and passage.tap is None:
            self._prepare(passage)
        passage.allowed = True
        return self._opening.open(passage)

    def _check_audit(self) -> None:
        if not self._audit.ready():
            raise Refused(status.AUDIT_UNAVAILABLE, retry_after=1)

    def _upstream(
        self, passage: Passage, route: Route, info: RequestInfo, identity: Identity, decision: Decision
    ) -> RequestBlock:
        """The head for the cluster: from lists of what may pass, with the impersonation last."""
        head = passage.head
        proxied = passage.proxied = proxied_prefix(route.target) if info.subresource == "proxy" else b""
        inbound = sorted_once(head, bool(proxied), not route.by_path)
        as_whom = decision.headers
        if decision.pass_through or inbound.impersonation:
            as_whom = self._access.as_whom(passage, identity, decision, inbound.impersonation)
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

    # --- what becomes of it: gateway.ports.Owner

    def reset(self, passage: Passage, error: ExchangeReset) -> None:
        """See gateway.ports.Owner."""
        self._opening.failed(passage, error, lambda: self._decide(passage, ROUNDS))

    def began(self, passage: Passage) -> None:
        """See gateway.ports.Owner."""
        self._audit.started(passage)

    def ended(self, passage: Passage, outcome: Outcome) -> None:
        """See gateway.ports.Owner."""
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
        self._traffic.count("", "other", answer.code, 0.0, 0, len(answer.body), False)
        return to_no_request(answer, audit_id, self.date)


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
    if head.upgrade is None or identity.source != x509.SOURCE or (origin := head.get(b"origin")) is None:
        return
    site = origin.lower().partition(b"://")[2]
    if site != (head.host or b"").lower() and site.partition(b":")[0] != b"localhost":
        raise Refused(status.FORBIDDEN, "a page of another site asks with your certificate")


def _check_upgrade(head: RequestHead) -> None:
    if head.upgrade is not None and head.upgrade not in UPGRADES:
        raise Refused(status.UPGRADE_REFUSED, "to a protocol that Kubernetes does not use")
