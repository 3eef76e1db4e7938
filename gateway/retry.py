"""When a request may be sent a second time: a read, once, before any answer, and only after losing its agent."""

from __future__ import annotations

from gateway.passage import Passage
from tunnel.errors import ExchangeReset, Reason
from tunnel.ports import RequestBlock
from tunnel.requestinfo import RequestInfo

_ANOTHER_AGENT_MAY = frozenset((Reason.LINK_LOST, Reason.UNACKNOWLEDGED, Reason.DRAINING, Reason.STALE_EPOCH))
_READS = frozenset(("get", "list"))


def may_retry(passage: Passage, error: ExchangeReset) -> bool:
    """Whether opening another exchange for the same head is safe and of use."""
    return (
        error.reason in _ANOTHER_AGENT_MAY
        and passage.tries == 1
        and not passage.answered
        and passage.block is not None
        and passage.block.repeatable
    )


def repeatable(head: RequestBlock, info: RequestInfo) -> bool:
    """Whether asking twice is the same as asking once: RequestInfo's get and list (no watch, proxy, log or exec),
    without an upgrade, and without a body that could be gone. `info` is the head's meaning.
    """
    return info.verb in _READS and info.is_retryable_read and head.ended and not head.upgrade
