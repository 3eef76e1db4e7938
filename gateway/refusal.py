"""No, as its client reads it: the answer, the reason for the audit record, a warning where bodies are not shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import status
from gateway.failures import Answer, Refused
from gateway.withdrawal import Withdrawal
from tunnel.head import render_response_head
from tunnel.ports import Headers

if TYPE_CHECKING:
    from gateway.passage import Passage


def refuse(passage: Passage, refused: Refused) -> None:
    """The request ends here."""
    passage.reason = Withdrawal.of(refused, passage.audit_id).reason
    tell(passage, refused.answer(passage.audit_id))


def tell(passage: Passage, answer: Answer) -> None:
    """An answer of the gateway's own to a request."""
    if passage.route is not None and status.needs_warning(passage.route.target.partition(b"?")[0]):
        answer.warn()
    passage.answer(answer.code, answer.headers, answer.body)


def to_no_request(answer: Answer, audit_id: str, date: bytes) -> bytes:
    """The whole of an answer to bytes that were no request, and after which none can follow."""
    headers: Headers = [
        *answer.headers,
        (b"content-length", b"%d" % len(answer.body)),
        (b"audit-id", audit_id.encode("ascii")),
        (b"date", date),
        (b"connection", b"close"),
    ]
    return render_response_head(answer.code, b"", headers) + answer.body
