"""The audit log: one `audit.k8s.io/v1` Event, level Metadata, in a line of JSON for each request.

A request costs a tuple on a list; lines are made and written in one batch for each turn of the loop. The
queue is bounded, and where the log cannot be written the gateway lets nothing new through (`ready`), since
what nobody recorded nobody can answer for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from gateway.auditevents import AuditRecord, line, minimal
from gateway.auditsinks import AuditSink, FileSink

_log = logging.getLogger(__name__)
_BATCH: Final = 512
_RETRY_AFTER: Final = 1.0
_TAKEN_SOON: Final = 0.02
"""Seconds until a sink is asked again that took nothing."""


class AuditLog:
    """Collects records and writes them. `sink` None records nothing; `schedule` is a loop's `call_soon`, `later` its
    `call_later`: for what a sink does not take at once.

    With `refuse` (the default) a failing sink makes the gateway refuse requests; without, records may be
    lost. What is in `lost` was lost, or all but its id: records of requests that were under way when the queue was
    full, and such as cannot be written down.
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
    ) -> None:
        self._sink = sink
        self._schedule = schedule
        self._later = later
        self._clock = clock
        self._capacity = capacity
        self._refuse = refuse
        self._queue: list[AuditRecord] = []
        self._unwritten = b""
        self._scheduled = self._waiting = False
        self._retry_at = 0.0
        self.problem: str | None = None
        self.lost = 0

    def record(self, record: AuditRecord) -> None:
        """Takes a record, to be written at the end of this turn. Past twice the capacity it is lost, and counted."""
        if self._sink is None:
            return
        queue = self._queue
        if len(queue) >= 2 * self._capacity:
            self.lost += 1
            return
        queue.append(record)
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self._flush_once)

    def ready(self) -> bool:
        """Whether a new request may come through; where the sink has failed, this is also what tries it again."""
        if self.problem is None and len(self._queue) < self._capacity:
            return True
        if self._clock() >= self._retry_at:
            self.flush()
        return not self._refuse or (self.problem is None and len(self._queue) < self._capacity)

    def flush(self) -> None:
        """Writes what there is, as far as the sink takes it. Never raises: `problem` says what is wrong."""
        if self._sink is None:
            return
        try:
            while self._unwritten or self._queue:
                if not self._unwritten:
                    batch, self._queue = self._queue[:_BATCH], self._queue[_BATCH:]
                    self._unwritten = b"".join([self._line(record) for record in batch])
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
        if left := len(self._queue) + self._unwritten.count(b"\n"):
            self.lost += left
            _log.error("audit records were lost at the end: nobody took them", extra={"records": left})
        if self._sink is not None:
            self._sink.close()

    def _line(self, record: AuditRecord) -> bytes:
        """One record must not take the others of its batch with it."""
        try:
            return line(record)
        except Exception as error:
            self.lost += 1
            _log.error("a record cannot be written down", extra={"audit_id": record.audit_id}, exc_info=error)
            return minimal(record)

    def _failed(self, error: OSError) -> None:
        self.problem = f"the audit log cannot be written: {error.strerror}"
        self._retry_at = self._clock() + _RETRY_AFTER

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._later(_TAKEN_SOON, self._flush_later)

    def _flush_later(self) -> None:
        self._waiting = False
        self._flush_once()

    def _flush_once(self) -> None:
        self._scheduled = False
        if self.problem is None or self._clock() >= self._retry_at:
            self.flush()


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
