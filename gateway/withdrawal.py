"""Why a stream that was allowed is ended: for its audit record, and for its client where the protocol can carry it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gateway import status
from gateway.failures import Answer, Refused


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """`reason` is for the audit, `answer` what a request would get now that the stream's was."""

    reason: str
    answer: Answer

    @classmethod
    def of(cls, refused: Refused, audit_id: str) -> Self:
        """The detail alone says why somebody is refused; of a cluster it is but the name."""
        whole = refused.failure not in (status.UNAUTHENTICATED, status.FORBIDDEN) or not refused.detail
        reason = refused.failure.text(refused.detail) if whole else refused.detail
        return cls(reason, refused.answer(audit_id))
