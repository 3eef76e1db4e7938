"""A decision by itself allows nothing."""

from __future__ import annotations

from auth.decision import Decision, Impersonable


def test_a_denial_has_no_headers_to_write() -> None:
    decision = Decision(False, "", "no grant")
    assert (decision.headers, decision.allow_user_impersonation, decision.allow_protected) == ((), False, frozenset())


def test_names_that_may_be_asked_for_are_patterns() -> None:
    some = Impersonable(("dev-*", "ada"))
    assert [some.user(name) for name in ("dev-1", "ada", "eve")] == [True, True, False]
    assert not some.group("dev-1")
