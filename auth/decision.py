"""What the grants say of one user and one cluster: the answer of authorisation."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.impersonate import Pairs


@dataclass(frozen=True, slots=True)
class Decision:
    """`headers` are the impersonation of an allowed user, ready to be written; `rule` is the grant that
    decided, or empty.

    `reason` is fit for the user's 403 and for the audit record.
    """

    allowed: bool
    rule: str
    reason: str
    headers: Pairs = ()
    allow_user_impersonation: bool = False
    allow_protected: frozenset[str] = frozenset()
