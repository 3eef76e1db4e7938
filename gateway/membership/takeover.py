"""When a second cluster gets a name that another one has: once nobody of the first has been connected, anywhere, for a
grace period, and somebody has accepted the second. A blip hands nothing over.
"""

from __future__ import annotations

import math
from typing import Protocol


class Presence(Protocol):
    """When agents of a cluster were last connected, to whichever replica. A single server answers by its own sessions;
    replicas answer for each other.
    """

    def last_connected(self, cluster: str, uid: str) -> float:
        """Epoch seconds: now, for as long as one is. Where nobody can know, the latest time at which one may have
        been.
        """
        ...


def seconds_until_free(last_connected: float, now: float, grace: float) -> float:
    """How long a name still belongs to a cluster that was last connected then; 0: it may be taken over.

    A clock that was set back counts nothing: what was seen in its future is as if it had been now.
    """
    if math.isnan(last_connected):
        return grace
    gone = max(0.0, now - last_connected)
    return max(0.0, grace - gone)
