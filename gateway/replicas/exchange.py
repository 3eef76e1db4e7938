"""What one replica asks of another by itself: a small question and its answer, both JSON, over the link that carries
users' requests, under a name that no cluster can have. Nobody but a replica can speak there.

    POST /NAME {"cluster": …}  →  {"result": {…}} or {"error": {"reason": "…", "message": "…"}}
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from gateway.replicas.routing import Peers
from stub.errors import StubError
from stub.peers.errors import NotOpened
from tunnel.calls import CallFailed, Method, Params
from tunnel.errors import ExchangeReset, HeadError, Hop, Reason
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseBlock, ResponseSink

NAME: Final = "_question"
MOST: Final = 8 * 1024 * 1024
"""Bytes of a question, and of an answer."""
PIECE: Final = 16 * 1024
AT_ONCE: Final = 256
"""Questions that a replica answers at a time; more are refused."""


class NotAsked(CallFailed):
    """Nothing has begun there: to ask again, or another one, is safe."""

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


async def ask(peers: Peers, replica: str, name: str, params: Params, timeout: float) -> Params:
    """The result. Who is cancelled takes the question back. :raises NotAsked: nothing has begun. :raises CallFailed:
    what the other one says; `timeout` and `closed` where nobody knows what it has done.
    """
    body = orjson.dumps(params)
    if len(body) > MOST:
        raise CallFailed("request", f"{name}: a question of more than {MOST} bytes")
    heard = _Heard(name)
    try:
        heard.exchange = peers.open(replica, NAME, RequestBlock(b"POST", b"/" + name.encode(), [], False), heard)
    except (StubError, HeadError, ExchangeReset) as error:
        raise NotAsked(str(error)) from None
    try:
        async with asyncio.timeout(timeout):
            await heard.say(body)
            return _result(name, await heard.whole)
    except TimeoutError:
        raise CallFailed("timeout", f"{name}: replica {replica} has not answered in {timeout:g} s") from None
    finally:
        heard.exchange.cancel(Hop.GATEWAY, Reason.CANCELLED, "nobody waits for this answer any more")


def _result(name: str, body: bytes) -> Params:
    try:
        said: Any = orjson.loads(body)
        if (error := said.get("error")) is not None:
            raise CallFailed(str(error["reason"])[:64], str(error["message"])[:1024])
        result = said["result"]
        if isinstance(result, dict):
            return result
    except (ValueError, AttributeError, KeyError, TypeError):
        pass
    raise CallFailed("answer", f"{name}: another replica's answer is not understood")


class _Heard:
    """The sink of a question. What it holds is bounded."""

    def __init__(self, name: str) -> None:
        self.exchange: Exchange
        self.whole: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._name = name
        self._body = bytearray()
        self._writable = asyncio.Event()

    async def say(self, body: bytes) -> None:
        """The question, as fast as it is taken; an answer may come before all of it was said."""
        for at in range(0, len(body), PIECE):
            self._writable.clear()
            if not self.exchange.send_data(body[at : at + PIECE]):
                await self._writable.wait()
            if self.whole.done():
                return
        self.exchange.send_end()

    def on_response(self, head: ResponseBlock) -> None:
        if head.interim:
            return
        if head.status != 200 or head.ended:
            self._fail(CallFailed("answer", f"{self._name}: another replica answers {head.status}"))

    def on_data(self, data: bytes) -> None:
        if self.whole.done():
            return
        self._body += data
        if len(self._body) > MOST:
            self._fail(CallFailed("answer", f"{self._name}: another replica's answer has more than {MOST} bytes"))
        else:
            self.exchange.consumed(len(data))

    def on_end(self, trailers: Headers) -> None:
        if not self.whole.done():
            self.whole.set_result(bytes(self._body))

    def on_reset(self, error: ExchangeReset) -> None:
        """What has begun there when the link is lost, nobody knows."""
        self._fail(NotAsked(error.message) if isinstance(error, NotOpened) else CallFailed("closed", error.message))

    def on_writable(self) -> None:
        self._writable.set()

    def _fail(self, failed: CallFailed) -> None:
        self._body.clear()
        self._writable.set()
        if not self.whole.done():
            self.whole.set_exception(failed)
            self.whole.exception()  # read or not: who asked may have gone


class Answering:
    """What this replica answers to others. An owner of tasks, which end with the question, or by `close`."""

    def __init__(self, on_bug: Callable[[BaseException], None]) -> None:
        self._methods: Mapping[str, Method] = {}
        self._on_bug = on_bug
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, methods: Mapping[str, Method]) -> None:
        """From now on these, by name. Each raises CallFailed for what is to be heard."""
        self._methods = methods

    async def close(self) -> None:
        """End what is being answered."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def open(self, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """What another replica asks. Raises StubError where nothing of it is begun."""
        name = head.target.removeprefix(b"/").decode("ascii", "replace")
        method = self._methods.get(name)
        if method is None or len(self._tasks) >= AT_ONCE:
            why = "has too much to answer" if method else "does not answer such a question (yet)"
            raise _Refuses("", f"this replica {why}; try again")
        return _Asked(lambda body: self._answer(name, method, body), self._begin, sink)

    def _begin(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, name: str, method: Method, body: bytes) -> bytes:
        try:
            params = orjson.loads(body)
            if not isinstance(params, dict):
                raise CallFailed("request", f"{name}: the question is no object")
            answer = orjson.dumps({"result": await method(params)})
            if len(answer) <= MOST:
                return answer
            failed = CallFailed("answer", f"{name}: an answer of more than {MOST} bytes")
        except orjson.JSONDecodeError:
            failed = CallFailed("request", f"{name}: the question is no JSON")
        except CallFailed as error:
            failed = error
        except Exception as error:
            self._on_bug(error)
            failed = CallFailed("internal", "internal error at another replica")
        return orjson.dumps({"error": {"reason": failed.reason, "message": str(failed)[:1024]}})


class _Refuses(StubError):
    """Nothing has begun."""

    reason = Reason.OVERLOADED


class _Asked:
    """The exchange of a question (tunnel.ports.Exchange): its body is gathered, then it is answered by a task."""

    agent = ""

    def __init__(
        self, answer: Callable[[bytes], Any], begin: Callable[[asyncio.Task[None]], None], sink: ResponseSink
    ) -> None:
        self._answer = answer
        self._begin = begin
        self._sink: ResponseSink | None = sink
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None

    def send_data(self, data: bytes) -> bool:
        if len(self._body) + len(data) <= MOST:
            self._body += data
        else:
            self._body[:] = b"\0"  # too long: nothing of it counts, and it is no JSON
        return True

    def send_end(self, trailers: bytes = b"") -> None:
        if self._task is None and self._sink is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="answer another replica")
            self._begin(self._task)

    def consumed(self, count: int) -> None:
        """The answer is whole already."""

    def cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        self._sink = None
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            answer = await self._answer(bytes(self._body))
        except asyncio.CancelledError:
            self._tell_reset()
            raise
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.on_response(ResponseBlock(200, [(b"content-type", b"application/json")]))
            sink.on_data(answer)
            sink.on_end([])

    def _tell_reset(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.on_reset(ExchangeReset(Hop.STUB, Reason.INTERNAL, "the replica stops"))
