"""The clock by which Leases are counted: it only goes forward, and goes on while the machine sleeps."""

from __future__ import annotations

import time


def steady() -> float:
    """Seconds since some moment. Where the system has it, time in suspend counts: who slept has slept away his Lease.
    A virtual machine that was stopped from outside may not notice: against that stand the epochs at the agents.
    """
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
