"""The audit webhook: batches of events, as `audit.k8s.io/v1` EventLists, posted one after the other.

Kubernetes' receivers serve. What arrived is known by a 2xx alone; anything else is sent again, after a back-off with
jitter, so a receiver may see an event twice. Redirects are not followed: they would send the log elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp

from gateway.audit.webhookconfig import WebhookTarget

_log = logging.getLogger(__name__)
_BEGIN: Final = b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":['
_TOO_LARGE: Final = 413
_AGAIN: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Batching:
    """Lines in a batch at most, and seconds that the first of them waits for others; the first back-off, which doubles
    up to the last; seconds for one post; lines that wait at most.
    """

    size: int = 400
    wait: float = 1.0
    first_backoff: float = 0.5
    last_backoff: float = 30.0
    timeout: float = 20.0
    capacity: int = 10_000
    tolerance: float = 10.0
    """Seconds that posts may fail for before the gateway lets nothing new through."""


class _Rejected(Exception):
    """The receiver will not take this batch, now or later."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the receiver answered {status}")
        self.status = status


class Webhook:
    """Implements `gateway.audit.log.Queue`. An asynchronous context, which owns the task that posts: at its end what is
    left has `patience` seconds. `clock` is a loop's; `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        target: WebhookTarget,
        batching: Batching,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        *,
        refuse: bool = True,
        patience: float = 5.0,
        name: str = "webhook",
    ) -> None:
        self._target = target
        self._batching = batching
        self._clock = clock
        self._jitter = jitter
        self._patience = patience
        self._queue: deque[bytes] = deque()
        self._most = (2 if refuse else 1) * batching.capacity
        self._under_way = 0
        self._some, self._full, self._stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._failing_since: float | None = None
        self._problem: str | None = None
        self._session: aiohttp.ClientSession
        self._task: asyncio.Task[None]
        self.refuse = refuse
        self.name = name
        self.lost = 0

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._target.tls, limit=1)
        timeout = aiohttp.ClientTimeout(total=self._batching.timeout)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="audit webhook")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for event in (self._stopping, self._some, self._full):
            event.set()
        try:
            done, _ = await asyncio.wait([self._task], timeout=self._patience)
        finally:
            self._task.cancel()
            await self._session.close()
        if not done:
            await asyncio.wait([self._task])
        if left := self.waiting:
            self.lost += left
            _log.error("audit records were lost at the end: the webhook did not take them", extra={"records": left})

    # --- gateway.audit.log.Queue

    @property
    def problem(self) -> str | None:
        """What is wrong, for as long as posts fail."""
        return self._problem

    @property
    def waiting(self) -> int:
        """Lines that are not known to have arrived."""
        return len(self._queue) + self._under_way

    def record(self, line: bytes) -> None:
        """Takes a line. Where the queue is full it is lost, and counted."""
        waiting = len(self._queue) + self._under_way
        if waiting >= self._most:
            self.lost += 1
            return
        self._queue.append(line)
        if len(self._queue) == 1:
            self._some.set()
        if len(self._queue) >= self._batching.size:
            self._full.set()

    def ready(self) -> bool:
        """Whether a new request may come through."""
        if not self.refuse:
            return True
        since = self._failing_since
        patient = since is None or self._clock() - since < self._batching.tolerance
        return patient and self.waiting < self._batching.capacity

    def reopen(self) -> None:
        """There is nothing to reopen."""

    # --- the task

    async def _run(self) -> None:
        while not (self._stopping.is_set() and not self._queue):
            await self._some.wait()
            try:
                async with asyncio.timeout(self._batching.wait):
                    await self._full.wait()
            except TimeoutError:
                pass
            await self._deliver(self._take())

    def _take(self) -> list[bytes]:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batching.size))]
        self._under_way = len(batch)
        if not self._stopping.is_set():
            if not self._queue:
                self._some.clear()
            if len(self._queue) < self._batching.size:
                self._full.clear()
        return batch

    async def _deliver(self, batch: list[bytes]) -> None:
        """Returns when the batch has arrived, or can never."""
        backoff = self._batching.first_backoff
        while batch:
            try:
                await self._post(batch)
                break
            except _Rejected as error:
                if error.status == _TOO_LARGE and len(batch) > 1:
                    half = len(batch) // 2
                    await self._deliver(batch[:half])
                    batch = batch[half:]
                    continue
                self._failed(str(error))
                if not self.refuse:
                    self.lost += len(batch)
                    self._under_way -= len(batch)
                    return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._failed(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            await self._pause(backoff * (0.5 + self._jitter()))
            backoff = min(2 * backoff, self._batching.last_backoff)
        self._under_way -= len(batch)
        self._failing_since = self._problem = None

    async def _post(self, batch: list[bytes]) -> None:
        body = b"".join((_BEGIN, b",".join(batch), b"]}"))
        headers = {"content-type": "application/json"}
        if (authorization := self._target.authorization()) is not None:
            headers["authorization"] = authorization
        async with self._session.post(
            self._target.url,
            data=body,
            headers=headers,
            allow_redirects=False,
            server_hostname=self._target.server_name,
        ) as response:
            status = response.status
        if 200 <= status < 300:
            return
        if 400 <= status < 500 and status not in _AGAIN:
            raise _Rejected(status)
        raise aiohttp.ClientError(f"the receiver answered {status}")

    def _failed(self, reason: str) -> None:
        if self._failing_since is None:
            self._failing_since = self._clock()
            _log.error("the audit webhook fails", extra={"reason": reason})
        self._problem = f"the audit webhook fails: {reason}"

    async def _pause(self, seconds: float) -> None:
        """The end cuts the first pause short: then it is tried once more at once, and in time again."""
        try:
            async with asyncio.timeout(seconds):
                if self._stopping.is_set():
                    await asyncio.sleep(seconds)
                else:
                    await self._stopping.wait()
        except TimeoutError:
            pass
