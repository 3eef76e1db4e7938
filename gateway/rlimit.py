"""How many descriptors this process may have open: each connection is one, so the usual soft limit of 1,024 would end a
server of a thousand agents. The soft limit is there for programs that use select(), which this one does not.
"""

from __future__ import annotations

import resource

SPARE = 256
"""Descriptors for everything that is no connection: logs, the registry, listeners, the hub."""


def raise_descriptors() -> int:
    """Raise the soft limit to the hard one, which needs no right; gives how many descriptors there may be now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # some kernels allow less than they say
            return soft
    return hard


def shortage(descriptors: int, connections: int, links: int) -> str | None:
    """What to tell people where the limits of users' connections and agents' links cannot be reached."""
    needed = connections + links + SPARE
    if descriptors >= needed:
        return None
    return (
        f"this process may open {descriptors} descriptors, and {connections} connections of users and {links} links of"
        f" agents would take {needed}: raise its limit (ulimit -Hn, LimitNOFILE= of systemd), or expect refusals"
    )
