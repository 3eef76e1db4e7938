"""What the grants say of one user, one cluster and one request: the answer of authorisation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from auth.grants.patterns import matches
from tunnel.impersonate import Pairs


@dataclass(frozen=True, slots=True)
class Impersonable:
    """Whom a user may become with --as: names, in which `*` stands for any characters."""

    users: tuple[str, ...]
    groups: tuple[str, ...] = ()

    def user(self, name: str) -> bool:
        """Whether this user may be asked for."""
        return any(matches(pattern, name) for pattern in self.users)

    def group(self, name: str) -> bool:
        """Whether this group may be asked for."""
        return any(matches(pattern, name) for pattern in self.groups)


@dataclass(frozen=True, slots=True)
class Decision:
    """`headers` are the impersonation of an allowed user, ready to be written; `rule` is the grant that decided, or
    empty. `expires` is the grant's end, epoch seconds.

    With `pass_through` there is no impersonation: the user's own credential goes to the cluster that it is from.

    `reason` is fit for the user's 403 and for the audit record.
    """

    allowed: bool
    rule: str
    reason: str
    headers: Pairs = ()
    allow_user_impersonation: bool | Impersonable = False
    allow_protected: frozenset[str] = frozenset()
    pass_through: bool = False
    expires: float = math.inf
