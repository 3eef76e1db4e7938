"""Questions between replicas, over real links: answered, refused, taken back, and lost midway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from gateway.replicas import exchange
from gateway.replicas.exchange import AT_ONCE, NAME, Answering, NotAsked, ask
from stub.peers.errors import PeerGone
from tests.stub.peers.replicas import Server, two
from tests.support.attached import eventually
from tunnel.calls import CallFailed, Params
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseBlock, ResponseSink


class There:
    """The other replica."""

    def __init__(self) -> None:
        self.bugs: list[BaseException] = []
        self.answering = Answering(self.bugs.append)
        self.answering.serve({"echo": self.echo, "fail": self.fail, "bug": self.bug, "wait": self.wait})
        self.waiting = self.cancelled = 0

    def open(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        assert cluster == NAME
        return self.answering.open(head, sink)

    async def echo(self, params: Params) -> Params:
        return params

    async def fail(self, _params: Params) -> Params:
        raise CallFailed("forbidden", "not for you")

    async def bug(self, _params: Params) -> Params:
        raise ZeroDivisionError

    async def wait(self, _params: Params) -> Params:
        self.waiting += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return {}


@pytest.fixture
def there() -> There:
    return There()


@pytest.fixture
async def pair(there: There) -> AsyncIterator[tuple[Server, Server]]:
    async with two(there.open) as (r, o):
        yield r, o
        await there.answering.close()


async def failing(server: Server, name: str, params: Params | None = None, timeout: float = 5.0) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await ask(server.peers, "o", name, params or {}, timeout)
    return caught.value


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
async def test_an_answer_is_what_the_other_one_says_however_long(pair: tuple[Server, Server], size: int) -> None:
    params = {"text": "ü" * size, "list": [1, {"a": None}]}
    assert await ask(pair[0].peers, "o", "echo", params, 10.0) == params


async def test_what_the_other_one_refuses_or_breaks_on_is_told(pair: tuple[Server, Server], there: There) -> None:
    failed = await failing(pair[0], "fail")
    assert (failed.reason, str(failed)) == ("forbidden", "not for you")
    failed = await failing(pair[0], "bug")
    assert failed.reason == "internal"
    assert "division" not in str(failed)
    assert len(there.bugs) == 1


async def test_of_what_it_does_not_answer_nothing_has_begun(pair: tuple[Server, Server], there: There) -> None:
    assert isinstance(await failing(pair[0], "unknown"), NotAsked)
    there.answering.serve({})
    assert isinstance(await failing(pair[0], "echo"), NotAsked)


async def test_who_is_not_linked_was_not_asked(pair: tuple[Server, Server]) -> None:
    r, _ = pair
    with pytest.raises(NotAsked):
        await ask(r.peers, "nobody", "echo", {}, 1.0)
    r.peers.tell([r.record])
    assert isinstance(await failing(r, "echo"), NotAsked)


async def test_an_answer_that_does_not_come_is_waited_for_so_long_and_taken_back(
    pair: tuple[Server, Server], there: There
) -> None:
    assert (await failing(pair[0], "wait", timeout=0.1)).reason == "timeout"
    await eventually(lambda: there.cancelled == 1)


async def test_who_is_cancelled_takes_the_question_back(pair: tuple[Server, Server], there: There) -> None:
    asking = asyncio.create_task(ask(pair[0].peers, "o", "wait", {}, 60.0))
    await eventually(lambda: there.waiting)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await eventually(lambda: there.cancelled == 1)


async def test_a_link_that_is_lost_midway_leaves_open_what_was_done(pair: tuple[Server, Server], there: There) -> None:
    r, o = pair
    asking = asyncio.create_task(ask(r.peers, "o", "wait", {}, 60.0))
    await eventually(lambda: there.waiting)
    await o.door.stop()
    with pytest.raises(CallFailed) as caught:
        await asking
    assert caught.value.reason == "closed"
    assert not isinstance(caught.value, NotAsked)
    await eventually(lambda: there.cancelled == 1)


async def test_a_replica_that_stops_ends_what_it_answers(pair: tuple[Server, Server], there: There) -> None:
    asking = asyncio.create_task(ask(pair[0].peers, "o", "wait", {}, 60.0))
    await eventually(lambda: there.waiting)
    await there.answering.close()
    with pytest.raises(CallFailed):
        await asking


async def test_questions_at_a_time_are_bounded(
    pair: tuple[Server, Server], there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert AT_ONCE == 256
    monkeypatch.setattr(exchange, "AT_ONCE", 3)
    asking = [asyncio.create_task(ask(pair[0].peers, "o", "wait", {}, 60.0)) for _ in range(3)]
    await eventually(lambda: there.waiting == 3)
    assert isinstance(await failing(pair[0], "echo"), NotAsked)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await eventually(lambda: there.cancelled == 3)
    assert await ask(pair[0].peers, "o", "echo", {"a": 1}, 5.0) == {"a": 1}


async def test_what_is_too_long_either_way_is_refused(
    pair: tuple[Server, Server], there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def long(_params: Params) -> Params:
        return {"text": "x" * 5000}

    there.answering.serve({"long": long, "echo": there.echo})
    monkeypatch.setattr(exchange, "MOST", 4096)
    assert (await failing(pair[0], "echo", {"text": "x" * 5000})).reason == "request"
    assert (await failing(pair[0], "long")).reason == "answer"


class Told:
    """The sink of a question, at who answers it."""

    def __init__(self) -> None:
        self.data: list[bytes] = []

    def on_response(self, head: ResponseBlock) -> None: ...

    def on_data(self, data: bytes) -> None:
        self.data.append(data)

    def on_end(self, trailers: Headers) -> None: ...

    def on_reset(self, error: ExchangeReset) -> None: ...

    def on_writable(self) -> None: ...


class Link:
    """A link whose other end says what a replica would not."""

    def __init__(self, *said: bytes, status: int = 200) -> None:
        self._said = said
        self._status = status
        self.agent = ""
        self.cancelled = False

    def open(self, _replica: str, _cluster: str, _head: RequestBlock, sink: ResponseSink) -> Any:
        asyncio.get_running_loop().call_soon(self._tell, sink)
        return self

    def _tell(self, sink: ResponseSink) -> None:
        sink.on_response(ResponseBlock(self._status, []))
        for data in self._said:
            sink.on_data(data)
        sink.on_end([])

    def send_data(self, _data: bytes) -> bool:
        return True

    def send_end(self, _trailers: bytes = b"") -> None: ...

    def consumed(self, _count: int) -> None: ...

    def cancel(self, _hop: Hop, _reason: Reason, _message: str) -> None:
        self.cancelled = True


@pytest.mark.parametrize(
    "said", [b"", b"null", b"[]", b"{}", b'{"result":1}', b'{"error":1}', b'{"error":{"reason":"x"}}', b"\xff"]
)
async def test_an_answer_that_no_replica_gives_is_none(said: bytes) -> None:
    with pytest.raises(CallFailed) as caught:
        await ask(Link(said), "o", "echo", {}, 1.0)
    assert caught.value.reason == "answer"


async def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST", 100)
    link = Link(*[b"x" * 60] * 50)
    with pytest.raises(CallFailed) as caught:
        await ask(link, "o", "echo", {}, 1.0)
    assert "more than 100 bytes" in str(caught.value)
    assert link.cancelled


async def test_an_answer_that_would_be_refused_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    there, heard = There(), Told()
    asked = there.answering.open(RequestBlock(b"POST", b"/echo", [], False), heard)
    asked.send_data(b'{"text":"%s"}' % (b"x" * 80))
    monkeypatch.setattr(exchange, "MOST", 100)
    asked.send_end()
    await eventually(lambda: heard.data)
    assert b"more than 100 bytes" in heard.data[0]


async def test_a_question_is_said_no_faster_than_it_is_taken() -> None:
    class Slow(Link):
        said, sink = 0, cast(ResponseSink, None)

        def _tell(self, sink: ResponseSink) -> None:
            self.sink = sink

        def send_data(self, _data: bytes) -> bool:
            self.said += 1
            return False

        def send_end(self, _trailers: bytes = b"") -> None:
            super()._tell(self.sink)

    link = Slow(b'{"result":{}}')
    asking = asyncio.create_task(ask(link, "o", "echo", {"text": "x" * (3 * exchange.PIECE)}, 5.0))
    for said in range(1, 5):
        await eventually(lambda said=said: link.said == said and link.sink is not None)  # type: ignore[misc]  # bound
        await asyncio.sleep(0.01)
        assert link.said == said
        link.sink.on_writable()
    assert await asking == {}


@pytest.mark.parametrize("error", [PeerGone("c", "gone"), ExchangeReset(Hop.STUB, Reason.LINK_LOST, "x")])
async def test_what_fails_before_it_is_said_was_not_asked(error: Exception) -> None:
    class Refusing:
        def open(self, *_: object) -> Exchange:
            raise error

    with pytest.raises(NotAsked):
        await ask(Refusing(), "o", "echo", {}, 1.0)


async def test_a_question_that_is_too_long_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST", 100)
    there, heard = There(), Told()
    asked = there.answering.open(RequestBlock(b"POST", b"/echo", [], False), heard)
    for _ in range(1000):
        asked.send_data(b"x" * 90)
    asked.send_end()
    await eventually(lambda: heard.data)
    assert b'"request"' in heard.data[0]
    assert len(asked._body) <= 100  # type: ignore[attr-defined]  # what it holds is what this is about
