"""Ids of agents' sessions that tell which replica has made them, so that an own link finds its session from any door.

An id stays what it was for agents: 32 hexadecimal digits. It is no secret, and proves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

_MARK: Final = 4
"""Bytes: two of a hundred replicas share a mark once in a million installations; `is_of` then says nothing."""
_RANDOM: Final = 12


def make(identity: str, randomness: Callable[[int], bytes]) -> str:
    """A new id of this replica's."""
    return _mark(identity) + randomness(_RANDOM).hex()


def is_of(session_id: str, identities: Iterable[str]) -> str | None:
    """Which of these replicas has made it; None where none of them has, or it cannot be told."""
    if len(session_id) != 2 * (_MARK + _RANDOM):
        return None
    mark = session_id[: 2 * _MARK]
    found = {identity for identity in identities if _mark(identity) == mark}
    return found.pop() if len(found) == 1 else None


def _mark(identity: str) -> str:
    return hashlib.blake2b(identity.encode(), digest_size=_MARK, person=b"kulvert session").hexdigest()
