"""The cluster's entry in the registry, and the join token of its agent, for as long as `up` runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from auth.jointoken import JoinToken
from cli.failures import Failed
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores

LABEL = ("kulvert.dev/made-by", "up")
LIFETIME = 7 * 86_400.0


@contextmanager
def member(stores: Stores, name: str) -> Iterator[str]:
    """The text of a join token, which accepts the first cluster that shows it. The entry goes at the end: the next
    sample is another cluster, with another id.
    """
    _forget(stores, name)
    now = time.time()
    stores.registry.add(Cluster(name, None, now, (LABEL,)))
    try:
        token = JoinToken.create(os.urandom)
        stores.tokens.add(token.stored(name, now + LIFETIME, created=now, accept=True))
        yield token.text()
    finally:
        stores.forget(name)


def _forget(stores: Stores, name: str) -> None:
    """What an `up` left that was killed. An entry that somebody made on purpose stays theirs."""
    found = stores.registry.get(name)
    if found is None:
        return
    if LABEL not in found.labels:
        raise Failed(f"there is a cluster {name!r} in this state directory: choose another --cluster or --state-dir")
    stores.forget(name)
