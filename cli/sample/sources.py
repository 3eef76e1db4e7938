"""Where time and randomness come from, handed in so that a test can fix both."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, as Kubernetes: no words by accident


def _now() -> datetime:
    return datetime.now(UTC)


def _uid() -> str:
    return str(uuid.uuid4())


def _suffix() -> str:
    return "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))


@dataclass(frozen=True, slots=True)
class Sources:
    now: Callable[[], datetime] = _now
    uid: Callable[[], str] = _uid
    suffix: Callable[[], str] = _suffix
