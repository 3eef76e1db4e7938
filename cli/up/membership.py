"""The cluster's entry in the registry, and the join token of its agent, for as long as `up` runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from auth.jointoken import JoinToken
from cli.failures import Failed
from gateway.registry import Cluster, ClusterRegistry, SqliteRegistry

LABEL = ("kulvert.dev/made-by", "up")
LIFETIME = 7 * 86_400.0


@contextmanager
def member(registry: SqliteRegistry, name: str) -> Iterator[str]:
    """The join token's text. The entry goes at the end: the next sample is another cluster, with another id."""
    _forget(registry, name)
    now = time.time()
    registry.add(Cluster(name, None, now, (LABEL,)))
    try:
        token = JoinToken.create(os.urandom)
        registry.add_join_token(token.stored(name, now + LIFETIME))
        yield token.text()
    finally:
        if registry.get(name) is not None:
            registry.remove(name)


def _forget(registry: ClusterRegistry, name: str) -> None:
    """What an `up` left that was killed. An entry that somebody made on purpose stays theirs."""
    found = registry.get(name)
    if found is None:
        return
    if LABEL not in found.labels:
        raise Failed(f"there is a cluster {name!r} in this state directory: choose another --cluster or --state-dir")
    registry.remove(name)
