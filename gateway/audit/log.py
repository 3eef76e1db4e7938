"""The audit log: lines of JSON, one for each request, on their way to where they are kept.

A request costs a place on a list; lines are written in one batch for each turn of the loop. The queue is bounded, and
where the log cannot be written the gateway lets nothing new through (`ready`), since what nobody recorded nobody can
answer for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from gateway.audit.sinks import AuditSink, FileSink

_log = logging.getLogger(__name__)
_BATCH: Final = 512
_RETRY_AFTER: Final = 1.0
_TAKEN_SOON: Final = 0.02
"""Seconds until a sink is asked again that took nothing."""


class Queue(Protocol):
    """A way of lines to one place: `AuditLog`, or gateway.audit.webhook.Webhook. `lost` counts lines, `waiting` those
    that were taken and are not written yet; `refuse`: where it fails, nothing new may come through.
    """

    name: str
    lost: int
    refuse: bool

    @property
    def problem(self) -> str | None: ...
    @property
    def waiting(self) -> int: ...
    def record(self, line: bytes) -> None: ...
    def ready(self) -> bool: ...
    def reopen(self) -> None: ...


class AuditLog:
    """Queues lines, and writes them. `sink` None records nothing; `schedule` is a loop's `call_soon`, `later` its
    `call_later`: for what a sink does not take at once. `name` is for metrics.

    With `refuse` (the default) a sink that fails or is full makes the gateway refuse requests, and only records of
    requests that were under way then can be lost; without, what comes when the queue is full is. `lost` counts them.
    """

    def __init__(
        self,
        sink: AuditSink | None,
        schedule: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
        *,
        later: Callable[[float, Callable[[], None]], object] = lambda _seconds, _call: None,
        capacity: int = 10_000,
        refuse: bool = True,
        name: str = "file",
    ) -> None:
        self._sink = sink
        self._schedule = schedule
        self._later = later
        self._clock = clock
        self._capacity = capacity
        self._most = 2 * capacity if refuse else capacity
        self.refuse = refuse
        self._queue: list[bytes] = []
        self._unwritten = b""
        self._scheduled = self._waits = False
        self._retry_at = 0.0
        self.name = name
        self.problem: str | None = None
        self.lost = 0

    def record(self, line: bytes) -> None:
        """Takes a line, to be written at the end of this turn. Where the queue is full it is lost, and counted."""
        queue = self._queue
        if len(queue) >= self._most or self._sink is None:
            self.lost += self._sink is not None
            return
        queue.append(line)
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self._flush_once)

    def ready(self) -> bool:
        """Whether a new request may come through; where the sink has failed, this is also what tries it again."""
        if self.problem is None and len(self._queue) < self._capacity:
            return True
        if self._clock() >= self._retry_at:
            self.flush()
        return not self.refuse or (self.problem is None and len(self._queue) < self._capacity)

    @property
    def waiting(self) -> int:
        """Lines that are not written yet."""
        return len(self._queue) + self._unwritten.count(b"\n")

    def flush(self) -> None:
        """Writes what there is, as far as the sink takes it. Never raises: `problem` says what is wrong."""
        if self._sink is None:
            return
        try:
            while self._unwritten or self._queue:
                if not self._unwritten:
                    batch, self._queue = self._queue[:_BATCH], self._queue[_BATCH:]
                    self._unwritten = b"".join(batch)
                taken = self._sink.write(self._unwritten)
                self._unwritten = self._unwritten[taken:]
                if not taken:
                    self._wait()
                    return
            self.problem = None
        except OSError as error:
            self._failed(error)

    def reopen(self) -> None:
        """For log rotation: what comes goes to a new file of the same name. Other sinks have none."""
        self.flush()
        if isinstance(self._sink, FileSink):
            try:
                self._sink.reopen()
            except OSError as error:
                self._failed(error)

    def close(self, patience: float = 2.0) -> None:
        """Writes the rest and closes the sink. A reader that is only slow has a while; what it leaves is lost."""
        self.flush()
        deadline = time.monotonic() + patience
        while (self._unwritten or self._queue) and self.problem is None and time.monotonic() < deadline:
            time.sleep(0.01)
            self.flush()
        if left := self.waiting:
            self.lost += left
            _log.error("audit records were lost at the end: nobody took them", extra={"records": left})
        if self._sink is not None:
            self._sink.close()

    def _failed(self, error: OSError) -> None:
        self.problem = f"the audit log cannot be written: {error.strerror}"
        self._retry_at = self._clock() + _RETRY_AFTER

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._later(_TAKEN_SOON, self._flush_later)

    def _flush_later(self) -> None:
        self._waits = False
        self._flush_once()

    def _flush_once(self) -> None:
        self._scheduled = False
        if self.problem is None or self._clock() >= self._retry_at:
            self.flush()


class AuditLogs:
    """Several queues as one: each takes every line, and is full or broken by itself."""

    def __init__(self, queues: Sequence[Queue]) -> None:
        self.queues = tuple(queues)

    @property
    def problem(self) -> str | None:
        """What is wrong with any of those without which nothing comes through."""
        return "; ".join(queue.problem for queue in self.queues if queue.refuse and queue.problem) or None

    def record(self, line: bytes) -> None:
        """See `AuditLog.record`."""
        for queue in self.queues:
            queue.record(line)

    def ready(self) -> bool:
        """Whether none of them stands against a new request. All are asked, since asking is what tries them again."""
        refusing = [queue for queue in self.queues if not queue.ready()]
        return not refusing

    def reopen(self) -> None:
        """See `AuditLog.reopen`."""
        for queue in self.queues:
            queue.reopen()


class AuditIds:
    """Unique ids in the form of a UUID (RFC 9562, version 8): 74 random bits of this process, then a
    counter.

    They name requests and are no secret. Each process makes its own, from its own randomness.
    """

    def __init__(self, randomness: Callable[[int], bytes]) -> None:
        base = randomness(16).hex()
        variant = "89ab"[int(base[15], 16) % 4]
        self._prefix = f"{base[:8]}-{base[8:12]}-8{base[12:15]}-{variant}{base[16:19]}-"
        self._count = int(base[20:], 16)

    def __call__(self) -> str:
        """The next id."""
        self._count = count = (self._count + 1) & 0xFFFFFFFFFFFF
        return f"{self._prefix}{count:012x}"
