"""Requests that wait for an answer from elsewhere: a token's issuer, the hub's API. Everything else is decided at once.

A decision that cannot be made from memory raises `auth.authenticator.Undecided`; what it asks for is awaited here, and
then the decision is made again. So the pipeline stays synchronous, and what it awaits has one owner and bounds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from auth.authenticator import AuthenticationUnavailable, Undecided

_log = logging.getLogger(__name__)
T = TypeVar("T")
PATIENCE: Final = 5.0
"""Seconds for one question. With what is remembered, and looks at live streams, it makes up the bound on revocation."""
ROUNDS: Final = 4
"""Questions that one decision may take: an issuer's keys, a review of the token, one of the access, and one over."""


class Settling:
    """The questions under way. `most` bounds the requests that wait for an answer; `awaited` those that wait for a
    cluster's agents, by themselves: one cluster's outage must not keep anybody from being known. Live streams, which
    have somebody's connection and were let in before, are bounded by those alone: no stranger's requests may stand
    between them and their answer.
    """

    def __init__(self, *, most: int = 1_000, awaited: int = 2_000, patience: float = PATIENCE) -> None:
        self._most = most
        self._awaited = awaited
        self._patience = patience
        self._requests: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[None]] = set()
        self._arriving: set[asyncio.Task[None]] = set()

    def wait(self, undecided: Undecided, then: Callable[[], None]) -> bool:
        """Call `then` when the question is settled, or took too long. False: too many wait already."""
        if len(self._requests) >= self._most:
            return False
        self._begin(self._requests, undecided, then)
        return True

    def wait_for_agents(self, undecided: Undecided, then: Callable[[], None]) -> bool:
        """The same, for who is known already and waits for a cluster's agents."""
        if len(self._arriving) >= self._awaited:
            return False
        self._begin(self._arriving, undecided, then)
        return True

    def look_again(self, undecided: Undecided, then: Callable[[], None]) -> None:
        """The same for a live stream. It always may wait."""
        self._begin(self._streams, undecided, then)

    async def close(self) -> None:
        """Nobody waits any more."""
        tasks = (*self._requests, *self._streams, *self._arriving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, under_way: set[asyncio.Task[None]], undecided: Undecided, then: Callable[[], None]) -> None:
        task = asyncio.get_running_loop().create_task(self._settle(undecided, then), name="settle a decision")
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    async def _settle(self, undecided: Undecided, then: Callable[[], None]) -> None:
        await _patiently(undecided, self._patience)
        then()


async def settled(decide: Callable[[], T], patience: float = PATIENCE) -> T:
    """The same for whoever may await. Raises AuthenticationUnavailable where no decision comes of it."""
    for _ in range(ROUNDS):
        try:
            return decide()
        except Undecided as undecided:
            await _patiently(undecided, patience)
    raise AuthenticationUnavailable("those who know do not answer")


async def _patiently(undecided: Undecided, patience: float) -> None:
    try:
        async with asyncio.timeout(patience):
            await undecided.settle()
    except TimeoutError:
        return  # who decides again will see that nothing is known
    except Exception as error:  # it must not raise, but a request that nobody decides again would wait for ever
        _log.error("a question cannot be settled", exc_info=error)
