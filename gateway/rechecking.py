"""Live streams looked at again: each goes on for as long as its user may have it, and as whom it was opened.

Revocation has to bite in what is open, too. So every few seconds (`gateway.door`) a stream is decided anew, from the
credential on, and ended where the answer is no.
"""

from __future__ import annotations

from collections.abc import Callable

from auth.authenticator import Undecided
from auth.decision import Decision
from gateway import status
from gateway.access import Access, check_allowed
from gateway.failures import Refused
from gateway.passage import Passage
from gateway.route import Route
from gateway.settling import Settling


class Rechecking:
    """Ends streams (`Passage.withdraw`). `wall` tells the time that credentials expire by."""

    def __init__(
        self, access: Access, settling: Settling, wall: Callable[[], float], on_bug: Callable[[BaseException], None]
    ) -> None:
        self._access = access
        self._settling = settling
        self._wall = wall
        self._on_bug = on_bug

    def look(self, passage: Passage) -> None:
        """Cut it if its user may not have it any more. Must not raise."""
        self._look(passage, first=True)

    def _look(self, passage: Passage, *, first: bool) -> None:
        """`first`: a question may be asked. What is undecided after it is asked again by the next look."""
        if passage.identity is None or passage.exchange is None or passage.route is None:
            return
        try:
            self._check(passage, passage.route)
        except Undecided as undecided:
            if first:
                self._settling.look_again(undecided, lambda: self._look(passage, first=False))
            else:
                self._withdraw(passage, Refused(status.AUTHENTICATION_UNAVAILABLE))
        except Refused as refused:
            self._withdraw(passage, refused)
        except Exception as error:  # others' streams are to be looked at, too; and of this one nobody knows
            self._on_bug(error)
            passage.bug()

    def _check(self, passage: Passage, route: Route) -> None:
        now = self._wall()
        identity = self._access.authenticate(passage, route, now)
        if passage.cluster:
            decision = self._access.authorise(identity, passage.cluster, passage.info, now)
            check_allowed(decision)
            self._access.look_up(passage.cluster)
            _check_unchanged(passage.decision, decision)

    def _withdraw(self, passage: Passage, refused: Refused) -> None:
        """An issuer that cannot be reached ends no stream: its user goes on until the credential's own end."""
        identity = passage.identity
        away = refused.failure is status.AUTHENTICATION_UNAVAILABLE
        if not away or identity is None or identity.expires <= self._wall():
            passage.withdraw(refused)


def _check_unchanged(before: Decision | None, now: Decision) -> None:
    """The cluster goes on serving a stream as whom it was opened. The rule's name may change, and the rule."""
    if before is not None and _effect(before) != _effect(now):
        raise Refused(status.FORBIDDEN, "your grant has changed: open the stream again")


def _effect(decision: Decision) -> tuple[object, ...]:
    return decision.headers, decision.allow_protected, decision.allow_user_impersonation, decision.pass_through
