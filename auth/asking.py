"""Answers that come from elsewhere, for authenticators and authorisers that decide synchronously.

Whoever asks first starts the question; all who ask the same meanwhile wait for it. An answer is handed over to whoever
asks again, and kept for `keep` seconds: what is to be remembered for longer, the caller remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from auth.authenticator import AuthenticationUnavailable, Undecided

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class Asking(Generic[Key, Answer]):
    """`ask` fetches an answer, and raises AuthenticationUnavailable where there is none to be had. `most` bounds both
    what is under way and what is kept.
    """

    def __init__(
        self,
        ask: Callable[[Key], Awaitable[Answer]],
        clock: Callable[[], float],
        *,
        keep: float = 5.0,
        most: int = 1_000,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._keep = keep
        self._most = most
        self._kept: dict[Key, tuple[Answer | AuthenticationUnavailable, float]] = {}
        self._under_way: dict[Key, asyncio.Future[None]] = {}

    def get(self, key: Key) -> Answer:
        """The answer. :raises Undecided: it has to be fetched; AuthenticationUnavailable: nobody gives one."""
        answer, until = self._kept.get(key, (None, 0.0))
        if answer is None or self._clock() >= until:
            raise Undecided(lambda: self._settle(key))
        if isinstance(answer, AuthenticationUnavailable):
            raise AuthenticationUnavailable(answer.reason)
        return answer

    async def _settle(self, key: Key) -> None:
        """The one who asks may give up; those who wait with him do not, and the next of them asks again."""
        while (others := self._under_way.get(key)) is not None:
            await asyncio.shield(others)
            if key in self._kept:
                return None
        if len(self._under_way) >= self._most:
            return self._keep_answer(key, AuthenticationUnavailable("too many questions are under way"))
        mine = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            self._keep_answer(key, await self._answered(key))
        finally:
            del self._under_way[key]
            mine.set_result(None)

    async def _answered(self, key: Key) -> Answer | AuthenticationUnavailable:
        try:
            return await self._ask(key)
        except AuthenticationUnavailable as unavailable:
            return unavailable

    def _keep_answer(self, key: Key, answer: Answer | AuthenticationUnavailable) -> None:
        self._kept.pop(key, None)
        if len(self._kept) >= self._most:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (answer, self._clock() + self._keep)
