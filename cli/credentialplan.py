"""What to do about a credential, now: use it, renew it, have its user sign in. Pure: the time is passed in.

Two things must never happen: that an expired credential is handed out, and that a renewal is asked for again and again
(the issuer is down, its tokens are born old, this machine's clock was set). Everything else follows from these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

MARGIN = 60.0
"""Seconds before its end at which a token is renewed: for the request under way, and clocks that differ a little."""
LAST = 5.0
"""Seconds before its end after which it is not handed out any more."""
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0
JUMP = 120.0
"""A moment so far ahead of what the clock may have written says that the clock was set back."""


class Step(Enum):
    """What comes next."""

    USE = "use"
    RENEW = "renew"
    WAIT = "wait"
    SIGN_IN = "sign in"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Times:
    """A credential's life by this machine's clock, and what became of the attempts to renew it."""

    obtained: float
    expires: float
    share: float = 0.0
    """Of its life, after which it is renewed: two thirds for a certificate. 0: shortly before the end."""
    retry_at: float = 0.0
    failures: int = 0

    @property
    def life(self) -> float:
        """Seconds."""
        return max(0.0, self.expires - self.obtained)

    @property
    def due(self) -> float:
        """When it is to be renewed."""
        if self.share:
            return self.obtained + self.life * self.share
        return self.expires - min(MARGIN, self.life / 4)

    @property
    def last(self) -> float:
        """Until when it is handed out."""
        return self.expires - min(LAST, self.life / 10)

    def known(self, now: float) -> bool:
        """Whether the clock was not set back since: then nothing that it wrote can be relied on."""
        return now >= self.obtained - JUMP

    def usable(self, now: float) -> bool:
        """Whether it may still be handed out."""
        return self.known(now) and now < self.last

    def paused(self, now: float) -> bool:
        """Whether it is too early to ask again."""
        return self.known(now) and now < self.retry_at <= now + LONGEST_PAUSE

    def until(self, now: float, renewable: bool) -> float:
        """When its user's program is to ask for another. Not before: it would ask without end.

        Nor when it is due, which may be a moment after it was handed out: client-go closes all its connections when it
        is given another certificate, and with them the request that is under way. Half-way to its last moment there is
        time for that, and still time to renew.
        """
        if now < self.due:
            return (self.due + self.last) / 2
        return min(self.last, max(self.retry_at, now + 1.0)) if renewable else self.last


def obtained(now: float, expires: float, share: float = 0.0) -> Times:
    """Of a credential that has just been made. Its life is what it has left: born old, it is not due at once."""
    return Times(now, expires, share)


def failed(times: Times, now: float) -> Times:
    """After an attempt that failed for a reason that may pass: pauses double."""
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(times.failures, 16))
    return replace(times, retry_at=now + pause, failures=times.failures + 1)


def decide(times: Times | None, now: float, *, renewable: bool, interactive: bool) -> Step:
    """What to do now. `renewable`: there is a way without the user."""
    if times is not None and times.known(now) and now < min(times.due, times.last):
        return Step.USE
    if renewable and (times is None or not times.paused(now)):
        return Step.RENEW
    if times is not None and times.usable(now):
        return Step.USE
    if renewable:
        return Step.WAIT
    return Step.SIGN_IN if interactive else Step.REFUSE
