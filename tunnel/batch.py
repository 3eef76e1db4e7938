"""One write a loop turn: whoever has bytes to write enrols here, and is flushed once when the current input is done.

A relay turns one read into several frames (HEAD, DATA, END) and one read of a link into writes for many clients.
Writing each alone costs a TLS record and a wake-up at the other end. So every `data_received` on the hot path runs
inside `with batch:`, and the writes leave at its end, without another turn of the loop. Outside of an input (timers,
tasks) they leave in the next turn.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class Flushable(Protocol):
    """Something with bytes gathered for one write."""

    def flush(self) -> None:
        """Write what was gathered. Must not raise; may enrol others."""


class Batch:
    """The gathered writers of one event loop. `call_soon` is the loop's."""

    __slots__ = ("_call_soon", "_depth", "_later", "_scheduled", "_waiting")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._waiting: list[Flushable] = []
        self._later: list[Flushable] = []
        self._depth = 0
        self._scheduled = False

    def add(self, writer: Flushable) -> None:
        """Enrol a writer, which sees to it that it enrols once for each flush."""
        self._waiting.append(writer)
        if not self._depth and not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def add_later(self, writer: Flushable) -> None:
        """Enrol a writer for the end of this turn of the loop: other inputs of the turn may add to its write."""
        self._later.append(writer)
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth and self._waiting:
            self._flush()

    def _turn(self) -> None:
        self._scheduled = False
        self._waiting += self._later
        self._later.clear()
        self._flush()

    def _flush(self) -> None:
        self._depth += 1
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                for writer in waiting:
                    writer.flush()
        finally:
            self._depth -= 1
