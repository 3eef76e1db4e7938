"""Work by name, at a bounded pace: a name waits once, however often it is asked for, and is worked on once at a time.

So what waits is never more than there are names, and the newest state of a name is what its work sees.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

TICK: Final = 0.1
LOOKS: Final = 2000.0
"""A rate for work that is mostly a look at what is in memory."""
AGAIN: Final = 30.0
"""Seconds after which a name is worked on again whose work had a bug."""
_log = logging.getLogger(__name__)


class Waiting:
    """Which name is due when; the earliest wish counts."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._due)

    def ask(self, name: str, due: float) -> None:
        """This one waits from now on, until then at the latest."""
        if due >= self._due.get(name, float("inf")):
            return
        self._due[name] = due
        heapq.heappush(self._heap, (due, name))
        if len(self._heap) > 2 * len(self._due) + 64:  # what was overtaken lies there until its time comes
            self._heap = [(due, name) for name, due in self._due.items()]
            heapq.heapify(self._heap)

    def take(self, now: float) -> str | None:
        """One that is due, which waits no more; the one that is due for longest."""
        while self._heap and self._heap[0][0] <= now:
            due, name = heapq.heappop(self._heap)
            if self._due.get(name) == due:
                del self._due[name]
                return name
        return None


class Slots:
    """Turns for what is dearer than a look: `rate` a second. A name that has to wait keeps its turn."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._next = float("-inf")
        self._turns: dict[str, float] = {}

    def wait(self, name: str, now: float) -> float:
        """Seconds until it is this one's turn; 0 takes it."""
        turn = self._turns.pop(name, None)
        if turn is None:
            turn = max(self._next, now)
            self._next = turn + self._step
        if turn > now:
            self._turns[name] = turn
        return max(0.0, turn - now)


class Paced:
    """`work` is for one name, at most `rate` a second and `at_once` at a time. `run` is its life, and owns tasks."""

    def __init__(
        self,
        work: Callable[[str], Coroutine[Any, Any, None]],
        clock: Callable[[], float],
        rate: float,
        at_once: int = 8,
        tick: float = TICK,
    ) -> None:
        self._work = work
        self._clock = clock
        self._rate = rate
        self._at_once = at_once
        self._tick = tick
        self._waiting = Waiting()
        self._busy: set[str] = set()
        self._allowed = 1.0

    def ask(self, name: str, after: float = 0.0) -> None:
        """There is something to do for it, in so many seconds."""
        self._waiting.ask(name, self._clock() + after)

    @property
    def idle(self) -> bool:
        """Nothing is due, and nothing under way."""
        return not self._waiting and not self._busy

    async def run(self) -> None:
        """Until cancelled; what is under way then ends with it."""
        before = self._clock()
        async with asyncio.TaskGroup() as group:
            while True:
                now = self._clock()
                self._allowed = min(self._allowed + self._rate * (now - before), max(1.0, self._rate * self._tick))
                before = now
                self._begin(group, now)
                await asyncio.sleep(self._tick)

    def _begin(self, group: asyncio.TaskGroup, now: float) -> None:
        while self._allowed >= 1 and len(self._busy) < self._at_once and (name := self._waiting.take(now)) is not None:
            if name in self._busy:
                self._waiting.ask(name, now + self._tick)
                continue
            self._allowed -= 1
            self._busy.add(name)
            group.create_task(self._one(name), name=f"hub: {name}")

    async def work_off(self) -> None:
        """Does all that is due now, one after the other and at no pace: for whoever drives it by hand."""
        while (name := self._waiting.take(self._clock())) is not None:
            await self._one(name)

    async def _one(self, name: str) -> None:
        try:
            await self._work(name)
        except Exception:  # a bug in one name's affairs ends nobody else's
            _log.exception("the hub's affairs of a cluster go on later", extra={"cluster": name})
            self.ask(name, AGAIN)
        finally:
            self._busy.discard(name)
