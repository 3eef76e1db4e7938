"""What of a passage goes into the audit log, and when: at its end, and for a stream also when it begins.

A stream (exec, watch) may last for hours, and whoever looks on while it runs must find it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from auth.identity import Identity
from gateway.audit.events import RESPONSE_COMPLETE, RESPONSE_STARTED, AuditRecord, Client
from gateway.audit.lines import Lines, Parts, client_parts
from tunnel.impersonate import Impersonation, ImpersonationRefused, read_impersonation
from tunnel.requestinfo import RequestInfo, request_info

if TYPE_CHECKING:
    from auth.decision import Decision
    from gateway.passage import Passage

_AUTHENTICATED: Final = "system:authenticated"


class Records(Protocol):
    """gateway.audit.log.AuditLog, or several."""

    def record(self, line: bytes) -> None: ...
    def ready(self) -> bool: ...


class Policy(Protocol):
    """gateway.audit.policy.AuditPolicy, or whatever holds the newest."""

    def wants(self, stage: str, identity: Identity | None, info: RequestInfo) -> bool: ...


class _Known(NamedTuple):
    """A client's part of the line, and what it was made of."""

    identity: Identity | None
    decision: Decision | None
    impersonated: Impersonation | None
    address: str
    cluster: str
    agent: str
    allowed: bool
    client: Client
    parts: Parts


class AuditTrail:
    """Makes records of passages. `ids` are gateway.audit.log.AuditIds; `wall` is epoch time, `clock` what durations are
    measured by (the one that passages have begun by); without a policy everything is recorded.
    """

    __slots__ = ("_clock", "_lines", "_log", "_wall", "new_id", "policy", "ready")

    def __init__(
        self,
        log: Records,
        ids: Callable[[], str],
        wall: Callable[[], float],
        *,
        clock: Callable[[], float] | None = None,
        policy: Policy | None = None,
        lines: Lines | None = None,
    ) -> None:
        self._log = log
        self._wall = wall
        self._clock = clock
        self.policy = policy
        self._lines = lines or Lines()
        self.new_id = ids
        self.ready = log.ready

    def started(self, passage: Passage) -> None:
        """The head of a stream's answer is out."""
        self._record(passage, RESPONSE_STARTED)

    def completed(self, passage: Passage) -> None:
        """The passage is over."""
        self._record(passage, RESPONSE_COMPLETE)

    def _record(self, passage: Passage, stage: str) -> None:
        head, route, info = passage.head, passage.route, passage.info
        target = head.target if route is None else route.target
        if info is None:
            path, _, query = target.partition(b"?")
            info = request_info(head.method.decode("ascii"), path, query)
        if self.policy is not None and not self.policy.wants(stage, passage.identity, info):
            return
        now = self._wall()
        seconds = self._clock() - passage.started if self._clock is not None else max(0.0, now - passage.received)
        known = _known(passage)
        record = AuditRecord(
            passage.audit_id, stage, passage.received, now, seconds, info, target, known.client, passage.code,
            passage.request_bytes, passage.response_bytes, head.upgrade is not None, passage.reason,
            "" if passage.tap is None else passage.tap.name, passage.notes,
        )  # fmt: skip
        self._log.record(self._lines.line(record, known.parts))


def _known(passage: Passage) -> _Known:
    """Kept with the fields of the head, which a client's next request has too."""
    derived, address, cluster = passage.head.derived, passage.client.peer.address, _cluster(passage)
    known: _Known | None = derived.get(AuditTrail)
    if (
        known is not None
        and known.identity is passage.identity
        and known.decision is passage.decision
        and known.agent == passage.agent
        and known.cluster == cluster
        and known.allowed is passage.allowed
        and known.address == address
        and known.impersonated == passage.impersonated
    ):
        return known
    client = _client(passage, address, cluster)
    fresh = derived[AuditTrail] = _Known(
        passage.identity, passage.decision, passage.impersonated, address, cluster, passage.agent,
        passage.allowed, client, client_parts(client),
    )  # fmt: skip
    return fresh


def _cluster(passage: Passage) -> str:
    """The one that was asked for, where it was refused: passage.cluster is set for those that are let through."""
    return passage.cluster or (passage.route.cluster or "" if passage.route is not None else "")


def _client(passage: Passage, address: str, cluster: str) -> Client:
    identity, decision, allowed = passage.identity, passage.decision, passage.allowed
    return Client(
        identity,
        passage.impersonated or (_seen(identity, decision) if allowed and identity and decision else None),
        address,
        passage.head.get(b"user-agent") or b"",
        cluster,
        passage.agent,
        allowed,
        decision.rule if decision is not None else "",
        decision is not None and allowed and decision.pass_through,
    )


def _seen(identity: Identity, decision: Decision) -> Impersonation | None:
    """Whom the grant made of the user, where that is somebody else."""
    if not decision.headers:
        return None
    try:
        seen = read_impersonation(decision.headers)
    except ImpersonationRefused:
        return None
    own = tuple(group for group in dict.fromkeys(identity.groups) if group != _AUTHENTICATED)
    same = (seen.user, seen.groups, seen.uid) == (identity.user, own, identity.uid)
    return None if same else seen
