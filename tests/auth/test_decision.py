"""A decision by itself allows nothing."""

from __future__ import annotations

from auth.decision import Decision


def test_a_denial_has_no_headers_to_write() -> None:
    decision = Decision(False, "", "no grant")
    assert (decision.headers, decision.allow_user_impersonation, decision.allow_protected) == ((), False, frozenset())
