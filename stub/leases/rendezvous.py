"""Which shard a cluster is in, and which replica is the best for a shard: by hashes that are the same everywhere.

Highest random weight (rendezvous): each shard ranks all replicas by itself, so that a replica that comes takes only
what it is best for, and of one that goes only its own shards move.
Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def shard_of(cluster: str, shards: int) -> int:
    """From 0 to `shards` - 1."""
    return int.from_bytes(blake2b(cluster.encode(), digest_size=8, person=b"kulvert-shard").digest(), "big") % shards


def weight(shard: int, identity: str) -> int:
    """The higher, the better is this replica for the shard."""
    return int.from_bytes(
        blake2b(f"{shard} {identity}".encode(), digest_size=8, person=b"kulvert-owner").digest(), "big"
    )


def ranked(shard: int, identities: Iterable[str]) -> list[str]:
    """The best first."""
    return sorted(identities, key=lambda one: (weight(shard, one), one), reverse=True)


def best(shard: int, identities: Iterable[str]) -> str:
    """The best one. Raises ValueError where there are none."""
    return max(identities, key=lambda one: (weight(shard, one), one))
