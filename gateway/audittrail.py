"""What of a passage goes into the audit log, and when: at its end, and for a stream also when it begins.

A stream (exec, watch) may last for hours, and whoever looks on while it runs must find it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from gateway.auditevents import RESPONSE_COMPLETE, RESPONSE_STARTED, AuditRecord
from gateway.requestinfo import request_info

if TYPE_CHECKING:
    from gateway.passage import Passage


class Records(Protocol):
    """gateway.audit.AuditLog."""

    def record(self, record: AuditRecord) -> None: ...
    def ready(self) -> bool: ...


class AuditTrail:
    """Makes records of passages. `ids` are gateway.audit.AuditIds; `wall` is epoch time."""

    __slots__ = ("_log", "_wall", "new_id", "ready")

    def __init__(self, log: Records, ids: Callable[[], str], wall: Callable[[], float]) -> None:
        self._log = log
        self._wall = wall
        self.new_id = ids
        self.ready = log.ready

    def started(self, passage: Passage) -> None:
        """The head of a stream's answer is out."""
        self._log.record(self._record(passage, RESPONSE_STARTED))

    def completed(self, passage: Passage) -> None:
        """The passage is over."""
        self._log.record(self._record(passage, RESPONSE_COMPLETE))

    def _record(self, passage: Passage, stage: str) -> AuditRecord:
        head, route, decision = passage.head, passage.route, passage.decision
        target = head.target if route is None else route.target
        info = passage.info
        if info is None:
            path, _, query = target.partition(b"?")
            info = request_info(head.method.decode("ascii"), path, query)
        return AuditRecord(
            passage.audit_id,
            stage,
            passage.received,
            self._wall(),
            info,
            target,
            passage.identity,
            passage.impersonated,
            passage.client.peer.address,
            head.get(b"user-agent") or b"",
            passage.code,
            passage.cluster,
            "",
            passage.request_bytes,
            passage.response_bytes,
            passage.allowed,
            decision.rule if decision is not None else "",
            passage.reason,
        )
