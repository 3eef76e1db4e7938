"""What has been taken back before its end: certificates by serial number, Kulvert's own tokens by id, and all that a
user was given before a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Revocations:
    """One moment's list. A serial number counts whoever signed it: where two authorities use one number, both are
    meant, which takes back too much and never too little.
    """

    serials: frozenset[int] = frozenset()
    tokens: frozenset[str] = frozenset()
    users: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """What a user was given up to this moment, epoch seconds, counts no more."""

    def certificate(self, serial: int, user: str, issued: float) -> bool:
        """Whether a certificate has been taken back."""
        return serial in self.serials or self._user(user, issued)

    def token(self, token_id: str, user: str, issued: float) -> bool:
        """Whether a token has been taken back."""
        return token_id in self.tokens or self._user(user, issued)

    def _user(self, user: str, issued: float) -> bool:
        # Whole seconds are what certificates and tokens hold, rounded down: of the revocation's own second, all goes.
        return issued <= self.users.get(user, _NEVER)


CurrentRevocations: TypeAlias = Callable[[], Revocations]
NONE = Revocations()


def no_revocations() -> Revocations:
    """For who keeps no list."""
    return NONE
