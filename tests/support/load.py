"""Users who ask again and again, and what they have to wait for: the time in which nobody was served, by the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from tests.support.loadclient import Client, Failed


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. `why` is empty where it was answered as it should be; `begun`: the answer's head had come."""

    began: float
    ended: float
    why: str = ""
    begun: bool = False

    @property
    def seconds(self) -> float:
        """What its user waited."""
        return self.ended - self.began


class Asking:
    """One user who sends a read, waits for the whole answer, pauses for `every` seconds, and goes on."""

    def __init__(self, client: Client, paths: Sequence[str], every: float = 0.02) -> None:
        self.client = client
        self._paths = paths
        self._every = every
        self._stopped = False
        self.outcomes: list[Outcome] = []

    async def run(self) -> None:
        """Until `stop`."""
        try:
            while not self._stopped:
                await self._ask(self._paths[len(self.outcomes) % len(self._paths)])
                await asyncio.sleep(self._every)
        finally:
            self.client.close()

    async def _ask(self, path: str) -> None:
        began, why, begun = time.monotonic(), "", False
        try:
            answer = await self.client.ask("GET", path)
            if answer.status != 200:
                why = f"{answer.status}: {answer.body[:300].decode(errors='replace')}"
        except Failed as failed:
            why, begun = str(failed), failed.begun
        self.outcomes.append(Outcome(began, time.monotonic(), why, begun))

    def stop(self) -> None:
        """After the request that is under way."""
        self._stopped = True

    # --- what it has seen

    def failed(self, since: float = 0.0) -> list[Outcome]:
        """Those that ended so after `since`."""
        return [one for one in self.outcomes if one.why and one.ended >= since]

    def gap(self, since: float) -> float | None:
        """The longest time without a success from `since` on; None: there was none at all."""
        longest, last = None, since
        for one in self.outcomes:
            if not one.why and one.ended >= since:
                longest = max(longest or 0.0, one.ended - last)
                last = one.ended
        return longest

    def served(self, since: float, seconds: float) -> bool:
        """Whether everything has gone well, and at once, for so many seconds up to now."""
        now = time.monotonic()
        lately = [one for one in self.outcomes if one.ended >= now - seconds]
        smooth = bool(lately) and all(not one.why and one.seconds < 0.5 for one in lately)
        return smooth and now - since >= seconds and now - lately[-1].ended < 0.5


class User(Protocol):
    """Somebody who goes on until he is stopped."""

    async def run(self) -> None:
        """Until `stop`."""

    def stop(self) -> None:
        """Soon."""


@asynccontextmanager
async def under_load(users: Sequence[User], patience: float = 60.0) -> AsyncIterator[None]:
    """All of them around the block; then they are stopped, and have ended. Raises what one of them has met."""
    tasks = [asyncio.ensure_future(user.run()) for user in users]
    try:
        yield
        for user in users:
            user.stop()
        async with asyncio.timeout(patience):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
