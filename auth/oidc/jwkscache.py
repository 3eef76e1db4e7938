"""What is known of an issuer's keys, for how long it may be believed, and when to ask again.

Requests never wait for keys that are known: a task fetches them anew before anybody misses them. A token of an unknown
key may mean that the issuer has changed its keys, so it is a reason to ask at once, but not more often than every
`RETRY` seconds: anybody can name an unknown key. While the issuer does not answer, the known keys stay good for
`STALE` seconds, since whoever keeps us from the issuer must not keep a withdrawn key alive for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable, Undecided
from auth.oidc.jwks import KeySet
from auth.oidc.jwksfetch import Fetched, Fetcher, FetchFailed

RETRY: Final = 10.0
"""Seconds between two fetches at least, failed ones included."""
REFRESH: Final = (60.0, 600.0)
"""Seconds between two fetches in ordinary times: what the issuer's Cache-Control says, within these bounds; the upper
one without it. The upper one is how long a key that the issuer has withdrawn is still believed.
"""
STALE: Final = 6 * 3600.0
"""Seconds for which keys are believed while their issuer cannot be asked."""

_log = logging.getLogger(__name__)


class IssuerKeys:
    """The keys of one issuer. `run` is its only task, and the only one that fetches; all else is decided at once."""

    def __init__(self, issuer: str, fetcher: Fetcher, clock: Callable[[], float]) -> None:
        self.issuer = issuer
        self.problem: str | None = "not asked yet"  # what is wrong with the last attempt, or its keys
        self._fetcher = fetcher
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched = 0.0  # when the keys came
        self._fresh_for = 0.0
        self._attempted: float | None = None  # when the last attempt ended, well or not
        self._reached = False  # whether it ended well
        self._wanted = asyncio.Event()
        self._ended = asyncio.Event()  # of the attempt under way, or of the next one

    def current(self, now: float) -> KeySet:
        """The keys to check a token with.

        :raises Undecided: they have to be fetched first.
        :raises AuthenticationUnavailable: that was tried just now, in vain.
        """
        if self._keys is None or now >= self._fetched + STALE:
            raise self._ask_again(now)
        return self._keys

    def unknown_key(self, now: float) -> Exception:
        """What to raise for a token whose key is not among the current ones."""
        if self._just_tried(now) and self._reached:
            return AuthenticationFailed("the token is signed with a key that its issuer does not publish")
        return self._ask_again(now)

    def due(self, now: float) -> float:
        """In how many seconds to fetch, without a reason to do it sooner."""
        if self._attempted is None:
            return 0.0
        wait = self._fresh_for if self._reached else RETRY
        return min(max(self._attempted + wait - now, 0.0), wait)  # a clock set back must not put it off

    async def settle(self) -> None:
        """Has the keys fetched, unless that has just been done; all who wait share one attempt."""
        if not self._just_tried(self._clock()):
            self._wanted.set()
            await self._ended.wait()

    async def run(self) -> None:
        """Fetches, at once and then whenever it is due or wanted, until it is cancelled."""
        try:
            while True:
                await self._attempt()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.due(self._clock())):
                        await self._wanted.wait()
        finally:
            self._ended.set()  # nobody is to wait for what does not come any more

    async def _attempt(self) -> None:
        try:
            self._succeeded(await self._fetcher.fetch())
        except FetchFailed as failed:
            self._failed(str(failed))
        except Exception as error:  # whatever one issuer's answer does here, it must not end the others' keys
            self._failed(f"a defect of Kulvert's: {type(error).__name__}", error)

    def _succeeded(self, fetched: Fetched) -> None:
        if not self._reached:
            _log.info("the keys of the issuer %s are known", self.issuer)
        least, most = REFRESH
        self._fresh_for = most if fetched.max_age is None else min(max(fetched.max_age, least), most)
        self._keys = fetched.keys
        self.problem = None if fetched.keys.keys else "it publishes no key that can be used"
        self._fetched = self._end(reached=True)

    def _failed(self, reason: str, defect: Exception | None = None) -> None:
        if self.problem != reason:
            _log.warning("the keys of the issuer %s cannot be fetched: %s", self.issuer, reason, exc_info=defect)
        self.problem = reason
        self._end(reached=False)

    def _end(self, *, reached: bool) -> float:
        """Lets those go on who wait. Gives the time."""
        self._reached, self._attempted = reached, self._clock()
        self._wanted.clear()  # also what was wanted during the attempt
        self._ended.set()
        self._ended = asyncio.Event()
        return self._attempted

    def _just_tried(self, now: float) -> bool:
        # Both ways: who asks may have read the clock before the attempt ended, or the clock was set back a little.
        return self._attempted is not None and abs(now - self._attempted) < RETRY

    def _ask_again(self, now: float) -> Exception:
        if self._just_tried(now):
            return AuthenticationUnavailable(
                "the keys of the token's issuer cannot be fetched just now: try again in some seconds"
            )
        return Undecided(self.settle)
