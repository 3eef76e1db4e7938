"""A scrape tells the metrics of all workers, whichever of them is asked: that one asks the others, over the link that
carries users' requests, under a name that no cluster can have. All else of Kulvert's own API the first one answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import Final, Protocol

from gateway.handover import Caller, Handover, ManagementPort
from gateway.replicas.management import block_of, head_of
from gateway.replicas.routing import Peers
from gateway.workers.boot import numbers_of
from gateway.workers.exposition import merged
from stub.errors import StubError
from stub.ownership import Ownership
from tunnel.errors import ExchangeReset, HeadError, Hop, Reason, TunnelError
from tunnel.head import RequestHead
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseBlock, ResponseSink

METRICS: Final = "_metrics"
PATH: Final = b"/metrics"
MOST: Final = 64 * 1024 * 1024
"""Bytes of one worker's."""
ANSWERED: Final = 2.0
"""Seconds for another worker to tell its metrics; what it has not told by then is left out, and said to be."""


class Ownerships(Ownership, Protocol):
    """stub.assigned.Assigned."""

    def others(self) -> Collection[str]: ...


class MetricsOfAll:
    """See `gateway.handover.ManagementPort`. `leaders` serves all but the metrics, `here` is this worker's own. `run`
    owns the gathering.
    """

    def __init__(self, here: Handover, leaders: ManagementPort, identity: str, ownership: Ownerships, peers: Peers):
        self._here = here
        self._leaders = leaders
        self._identity = identity
        self._ownership = ownership
        self._peers = peers
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.Event().wait()
        finally:
            self._group = None

    def open(self, head: RequestHead, caller: Caller, sink: ResponseSink) -> Exchange:
        """See `ManagementPort`."""
        if head.path != PATH or caller.identity is None or self._group is None:
            return self._leaders.open(head, caller, sink)
        gathering = _Gathering(self, self._group, block_of(head, caller), sink)
        gathering.local = self._here.open(head, caller, gathering)
        return gathering

    def open_here(self, block: RequestBlock, sink: ResponseSink) -> Exchange:
        """Another worker gathers: this one's own, for the same caller. Raises HeadError."""
        head, caller = head_of(block)
        return self._here.open(head, caller, sink)

    async def gathered(self, block: RequestBlock, own: bytes) -> bytes:
        """All workers' metrics."""
        others = list(self._ownership.others())
        told = await asyncio.gather(*(self._told(other, block) for other in others))
        names = [self._identity, *others]
        return merged(dict(zip(numbers_of(names), [own, *told], strict=True)))

    async def _told(self, worker: str, block: RequestBlock) -> bytes | None:
        try:
            async with asyncio.timeout(ANSWERED):
                return await _ask(self._peers, worker, block)
        except (NoAnswer, TimeoutError):
            return None


class NoAnswer(TunnelError):
    """Another worker could not be asked, or did not tell its metrics; the text says why."""


async def _ask(peers: Peers, worker: str, block: RequestBlock) -> bytes:
    """Who is cancelled takes the question back. :raises NoAnswer: there is none."""
    heard = _Heard()
    try:
        exchange = peers.open(worker, METRICS, block, heard)
    except (StubError, HeadError, ExchangeReset) as error:
        raise NoAnswer(str(error)) from None
    heard.exchange = exchange
    try:
        return await heard.whole
    finally:
        exchange.cancel(Hop.STUB, Reason.STOPPED, "not needed any more")


class _Heard:
    """The sink of a question."""

    exchange: Exchange

    def __init__(self) -> None:
        self.whole: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pieces: list[bytes] = []
        self._length = 0
        self._status = 0

    def on_response(self, head: ResponseBlock) -> None:
        if not head.interim:
            self._status = head.status
        if head.ended:
            self._fail(f"status {self._status}")

    def on_data(self, data: bytes) -> None:
        self._length += len(data)
        if self._length > MOST:
            self._fail("they are too long")
        elif not self.whole.done():
            self._pieces.append(data)
        self.exchange.consumed(len(data))

    def on_end(self, trailers: Headers) -> None:
        if self._status != 200:
            self._fail(f"status {self._status}")
        elif not self.whole.done():
            self.whole.set_result(b"".join(self._pieces))

    def on_reset(self, error: ExchangeReset) -> None:
        self._fail(error.message)

    def on_writable(self) -> None:
        """A question has no body."""

    def _fail(self, why: str) -> None:
        self._pieces.clear()
        if not self.whole.done():
            self.whole.set_exception(NoAnswer(why))


class _Gathering:
    """The sink of this worker's own answer, and the exchange of the whole. What is no success goes on as it is."""

    agent = ""
    local: Exchange

    def __init__(
        self, management: MetricsOfAll, group: asyncio.TaskGroup, block: RequestBlock, sink: ResponseSink
    ) -> None:
        self._management = management
        self._group = group
        self._block = block
        self._sink: ResponseSink | None = sink
        self._head: ResponseBlock | None = None
        self._pieces: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    # --- what this worker answers

    def on_response(self, head: ResponseBlock) -> None:
        if head.status == 200 and not head.ended:
            self._head = head
        elif self._sink is not None:
            self._sink.on_response(head)

    def on_data(self, data: bytes) -> None:
        if self._head is not None:
            self._pieces.append(data)
            self.local.consumed(len(data))
        elif self._sink is not None:
            self._sink.on_data(data)

    def on_end(self, trailers: Headers) -> None:
        if self._head is not None:
            self._task = self._group.create_task(self._finish(self._head), name="metrics of all workers")
        elif self._sink is not None:
            self._sink.on_end(trailers)

    def on_reset(self, error: ExchangeReset) -> None:
        if self._sink is not None:
            self._sink.on_reset(error)

    def on_writable(self) -> None:
        """A scrape has no body."""

    async def _finish(self, head: ResponseBlock) -> None:
        body = await self._management.gathered(self._block, b"".join(self._pieces))
        headers = [pair for pair in head.headers if pair[0] != b"content-length"]
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.on_response(replace(head, headers=[*headers, (b"content-length", b"%d" % len(body))]))
            sink.on_data(body)
            sink.on_end([])

    # --- what whoever asks does

    def send_data(self, data: bytes) -> bool:
        return self.local.send_data(data)

    def send_end(self, trailers: bytes = b"") -> None:
        self.local.send_end(trailers)

    def consumed(self, count: int) -> None:
        if self._head is None:
            self.local.consumed(count)

    def cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        self._sink = None
        if self._task is not None:
            self._task.cancel()
        self.local.cancel(hop, reason, message)
