"""A scrape at one of several workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web

from gateway.handover import Handover, caller_of
from gateway.workers import metrics
from gateway.workers.metrics import METRICS, MetricsOfAll
from stub.assigned import Assigned
from stub.errors import Draining
from stub.ownership import Replica
from tests.gateway.replicas.test_management import CALLER, Sink, head
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.ports import Exchange, RequestBlock, ResponseBlock, ResponseSink

SCRAPE = "GET /metrics HTTP/1.1\nHost: g\nAuthorization: Bearer secret\n\n"
NAMES = ("worker-0", "worker-1")


@dataclass
class Silent:
    """An exchange that answers nothing, or what a test says."""

    agent: str = ""
    cancelled: bool = False

    def send_data(self, data: bytes) -> bool:
        return True

    def send_end(self, trailers: bytes = b"") -> None: ...
    def consumed(self, count: int) -> None: ...
    def cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        self.cancelled = True


@dataclass
class Link:
    """The way to the other worker."""

    there: Callable[[RequestBlock, ResponseSink], Exchange]
    opened: list[tuple[str, str]] = field(default_factory=list)

    def open(self, replica: str, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        self.opened.append((replica, cluster))
        return self.there(head, sink)


@pytest.fixture
async def handover() -> AsyncIterator[Handover]:
    async def told(request: web.Request) -> web.Response:
        identity = caller_of(request).identity
        assert identity is not None
        assert "authorization" not in request.headers
        if identity.user != "ada":
            return web.Response(status=403, text="metrics are for others")
        text = "# HELP busy How busy.\n# TYPE busy gauge\nbusy 1.0\n"
        return web.Response(text=text, headers={"content-type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/metrics", told)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, keepalive_timeout=0, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    yield Handover(runner.server, asyncio.get_running_loop())
    await runner.cleanup()


@pytest.fixture
async def make(handover: Handover) -> AsyncIterator[Callable[[Link], MetricsOfAll]]:
    tasks: list[asyncio.Task[None]] = []

    def made(link: Link) -> MetricsOfAll:
        ownership = Assigned(tuple(Replica(name, "") for name in NAMES), "worker-0", 1)
        ownership.tell(NAMES)
        one = MetricsOfAll(handover, handover, "worker-0", ownership, link)
        tasks.append(asyncio.create_task(one.run()))
        return one

    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def scraped(one: MetricsOfAll) -> Sink:
    sink = Sink()
    await asyncio.sleep(0)
    one.open(head(SCRAPE), CALLER, sink)
    await asyncio.wait_for(sink.done.wait(), 5)
    return sink


async def test_all_workers_are_told_of_in_the_callers_name(make: Callable[[Link], MetricsOfAll]) -> None:
    other = make(Link(lambda _head, _sink: Silent()))
    link = Link(lambda block, sink: other.open_here(block, sink))
    sink = await scraped(make(link))
    assert link.opened == [("worker-1", METRICS)]
    assert sink.status == 200
    assert (b"content-length", b"%d" % len(sink.body)) in sink.headers
    assert b'busy{worker="0"} 1.0\nbusy{worker="1"} 1.0\n' in sink.body
    assert b'kulvert_worker_up{worker="1"} 1\n' in sink.body


def unreached(_block: RequestBlock, _sink: ResponseSink) -> Exchange:
    raise Draining("", "no")


def refused(_block: RequestBlock, sink: ResponseSink) -> Exchange:
    asyncio.get_running_loop().call_soon(sink.on_response, ResponseBlock(403, [], ended=True))
    return Silent()


def cut(_block: RequestBlock, sink: ResponseSink) -> Exchange:
    asyncio.get_running_loop().call_soon(sink.on_reset, ExchangeReset(Hop.STUB, Reason.LINK_LOST, "lost"))
    return Silent()


def endless(_block: RequestBlock, sink: ResponseSink) -> Exchange:
    def go() -> None:
        sink.on_response(ResponseBlock(200, []))
        for _ in range(3):
            sink.on_data(b"x" * 1_000)
        sink.on_end([])

    asyncio.get_running_loop().call_soon(go)
    return Silent()


def silent(_block: RequestBlock, _sink: ResponseSink) -> Exchange:
    return Silent()


@pytest.mark.parametrize("there", [unreached, refused, cut, endless, silent])
async def test_one_that_does_not_answer_is_left_out_and_said_to_be(
    make: Callable[[Link], MetricsOfAll],
    monkeypatch: pytest.MonkeyPatch,
    there: Callable[[RequestBlock, ResponseSink], Exchange],
) -> None:
    monkeypatch.setattr(metrics, "ANSWERED", 0.05)
    monkeypatch.setattr(metrics, "MOST", 2_000)
    sink = await scraped(make(Link(there)))
    assert b'busy{worker="0"} 1.0\n' in sink.body
    assert b'kulvert_worker_up{worker="1"} 0\n' in sink.body


async def test_who_may_not_is_told_so_and_nobody_else_is_asked(make: Callable[[Link], MetricsOfAll]) -> None:
    link, sink = Link(silent), Sink()
    one = make(link)
    await asyncio.sleep(0)
    assert CALLER.identity is not None
    one.open(head(SCRAPE), replace(CALLER, identity=replace(CALLER.identity, user="bob")), sink)
    await asyncio.wait_for(sink.done.wait(), 5)
    assert (sink.status, sink.body) == (403, b"metrics are for others")
    assert not link.opened


async def test_a_scrape_that_is_given_up_asks_no_further(make: Callable[[Link], MetricsOfAll]) -> None:
    asked = Silent()
    link = Link(lambda _block, _sink: asked)
    one, sink = make(link), Sink()
    await asyncio.sleep(0)
    exchange = one.open(head(SCRAPE), CALLER, sink)
    async with asyncio.timeout(5):
        while not link.opened:  # noqa: ASYNC110 -- a test looks on
            await asyncio.sleep(0.005)
    exchange.cancel(Hop.GATEWAY, Reason.CANCELLED, "gone")
    await asyncio.sleep(0.02)
    assert asked.cancelled
    assert not sink.done.is_set()
