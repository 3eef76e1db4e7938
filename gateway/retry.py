"""When a request may be sent a second time: a read, once, before any answer, and only after losing its agent."""

from __future__ import annotations

from gateway.passage import Passage
from tunnel.errors import ExchangeReset, Reason

_ANOTHER_AGENT_MAY = frozenset((Reason.LINK_LOST, Reason.UNACKNOWLEDGED, Reason.DRAINING, Reason.STALE_EPOCH))


def may_retry(passage: Passage, error: ExchangeReset) -> bool:
    """Whether opening another exchange for the same head is safe and of use. It has no body that could be gone."""
    return (
        error.reason in _ANOTHER_AGENT_MAY
        and passage.tries == 1
        and not passage.answered
        and passage.head.framing.empty
        and passage.head.upgrade is None
        and passage.info is not None
        and passage.info.is_retryable_read
    )
