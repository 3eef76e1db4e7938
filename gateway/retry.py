"""When a request may be sent a second time: a read, once, before any answer, and only after losing its agent."""

from __future__ import annotations

from gateway.passage import Passage
from tunnel.errors import ExchangeReset, Reason
from tunnel.head import RequestHead
from tunnel.ports import RequestBlock
from tunnel.requestinfo import RequestInfo, request_info

_ANOTHER_AGENT_MAY = frozenset((Reason.LINK_LOST, Reason.UNACKNOWLEDGED, Reason.DRAINING, Reason.STALE_EPOCH))
_READS = frozenset(("get", "list"))


def may_retry(passage: Passage, error: ExchangeReset) -> bool:
    """Whether opening another exchange for the same head is safe and of use."""
    return (
        error.reason in _ANOTHER_AGENT_MAY
        and passage.tries == 1
        and not passage.answered
        and passage.info is not None
        and repeatable(passage.head, passage.info)
    )


def repeatable(head: RequestHead, info: RequestInfo) -> bool:
    """Whether asking twice is the same as asking once: RequestInfo's get and list (no watch, proxy, log or exec),
    without an upgrade, and without a body that could be gone.
    """
    return info.verb in _READS and info.is_retryable_read and head.framing.empty and head.upgrade is None


def repeatable_block(head: RequestBlock) -> bool:
    """The same of a head that another replica has sent here."""
    path, _, query = head.target.partition(b"?")
    info = request_info(head.method.decode("ascii"), path, query)
    return info.verb in _READS and info.is_retryable_read and head.ended and not head.upgrade
