"""A question of the agent's own to its API server, with its own token and no impersonation: nothing of a
client's is in it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agent.answer import AnswerReader
from agent.policy import CheckedRequest
from agent.pool import UpstreamPool
from agent.request import render
from agent.upstream import UpstreamConnection
from tunnel.errors import ExchangeReset, HeadError, Hop, Reason
from tunnel.limits import KIB, HeadLimits

MAX_ANSWER = 256 * KIB
LIMITS = HeadLimits()
ACCEPTED = b"application/json, application/jwk-set+json"
"""kube-apiserver gives its key set as nothing but the latter."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, whole."""

    status: int
    body: bytes = field(repr=False)
    """A token or a key, perhaps."""


class TooLong(ExchangeReset):
    """The answer has more bytes than were asked for: the rest of it was not read."""


async def ask(
    pool: UpstreamPool,
    target: bytes,
    timeout: float,
    method: bytes = b"GET",
    body: bytes = b"",
    most: int = MAX_ANSWER,
) -> Reply:
    """GET a path, or say something else about it, in JSON. Raises ExchangeReset (of whichever hop failed), TIMEOUT
    included, and TooLong.
    """
    asking = _Question(pool, target, method, body, most)
    try:
        async with asyncio.timeout(timeout):
            with pool.batch:
                asking.begin()
            return await asking.reply
    except TimeoutError:
        raise ExchangeReset(Hop.APISERVER, Reason.TIMEOUT, f"no answer within {timeout:g} s") from None
    finally:
        asking.stop()


class _Question:
    """An `agent.upstream.UpstreamUser` for one request."""

    def __init__(self, pool: UpstreamPool, target: bytes, method: bytes, content: bytes, most: int) -> None:
        self._most = most
        headers = [(b"accept", ACCEPTED), (b"user-agent", b"kulvert-agent")]
        if content:
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        self._request = CheckedRequest(method, target, headers, None, len(content))
        self._content = content
        self._pool = pool
        self._answer = AnswerReader(self._request, LIMITS)
        self._connection: UpstreamConnection | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._status = 0
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Take a connection, or wait for one."""
        connection = self._pool.acquire(self)
        if connection is not None:
            self.on_connected(connection)

    def stop(self) -> None:
        """Nobody waits any more: a connection that is still ours is in the middle of something."""
        self._pool.forget(self)
        self.reply.cancel()
        if self._connection is not None:
            self._connection.abort()

    def on_connected(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        access = self._pool.access
        connection.write(render(self._request, access.server, access.authorization(self._pool.now())) + self._content)

    def on_unavailable(self, error: ExchangeReset) -> None:
        self._fail(error)

    def on_bytes(self, data: bytes) -> None:
        try:
            self._take(self._answer.feed(data))
        except HeadError as error:
            self._fail(ExchangeReset(Hop.APISERVER, Reason.BAD_RESPONSE, f"the API server's answer: {error}"))
            return
        if self._size > self._most:
            self._fail(TooLong(Hop.APISERVER, Reason.BAD_RESPONSE, "the API server's answer: too long"))
            return
        if self._answer.done:
            self._done()

    def _take(self, payload: list[bytes]) -> None:
        for head in self._answer.heads:
            self._status = head.status
        self._answer.heads = []
        self._body += payload
        self._size += sum(map(len, payload))

    def _done(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._answer.keep_alive:
                self._pool.release(connection)
            else:
                connection.abort()
        if not self.reply.done():
            self.reply.set_result(Reply(self._status, b"".join(self._body)))

    def on_finished(self) -> None:
        try:
            self._answer.finish()
        except HeadError:
            return
        self._done()

    def on_lost(self) -> None:
        self._connection = None
        self._fail(ExchangeReset(Hop.APISERVER, Reason.UPSTREAM_CLOSED, "the API server closed the connection"))

    def on_drained(self, count: int) -> None:
        return

    def _fail(self, error: ExchangeReset) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)
        if self._connection is not None:
            self._connection.abort()
