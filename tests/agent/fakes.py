"""Stand-ins for what the tunnel gives the agent: an exchange that records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.relay import Relay
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.ports import Headers, RequestBlock, ResponseBlock

USER: Headers = [(b"impersonate-user", b"alice"), (b"impersonate-group", b"dev")]


def get(target: bytes = b"/api", *headers: tuple[bytes, bytes], method: bytes = b"GET") -> RequestBlock:
    """A request without a body."""
    return RequestBlock(method, target, [*USER, *headers])


def post(*headers: tuple[bytes, bytes], target: bytes = b"/api") -> RequestBlock:
    """A request whose body follows."""
    return RequestBlock(b"POST", target, [*USER, *headers], ended=False)


def websocket(*headers: tuple[bytes, bytes], target: bytes = b"/exec") -> RequestBlock:
    """An upgrade to a websocket, with RFC 6455's own example key."""
    key = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
    return RequestBlock(b"GET", target, [*USER, (b"upgrade", b"websocket"), key, *headers], ended=False, upgrade=True)


class FakeExchange:
    """Records everything, and wakes whoever waits for something to have happened."""

    agent = ""

    def __init__(self) -> None:
        self.heads: list[ResponseBlock] = []
        self.data = b""
        self.ended = False
        self.trailers = b""
        self.reset: ExchangeReset | None = None
        self.credit = 0
        self.releases = 0
        self.room = True
        self.events: list[str] = []
        self._changed = asyncio.Event()

    def send_response(self, head: ResponseBlock) -> None:
        assert not self.ended
        self.heads.append(head)
        self.ended = head.ended
        self._note("response")

    def send_data(self, data: bytes) -> bool:
        assert data
        assert not self.ended
        self.data += data
        self._note("data")
        return self.room

    def send_end(self, trailers: bytes = b"") -> None:
        assert not self.ended
        self.ended = True
        self.trailers = trailers
        self._note("end")

    def consumed(self, count: int) -> None:
        self.credit += count
        self._note("consumed")

    def cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        assert self.reset is None
        self.reset = ExchangeReset(hop, reason, message)
        self._note("cancel")

    def released(self) -> None:
        self.releases += 1
        self._note("released")

    @property
    def head(self) -> ResponseBlock:
        """The last head."""
        return self.heads[-1]

    async def until(self, condition: Callable[[], object], timeout: float = 5.0) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.02)
                except TimeoutError:
                    continue

    async def over(self, timeout: float = 5.0) -> None:
        """Wait for the end of the answer, or a RESET."""
        await self.until(lambda: self.ended or self.reset is not None, timeout)

    def _note(self, event: str) -> None:
        self.events.append(event)
        self._changed.set()


Run = Callable[[RequestBlock], tuple[FakeExchange, Relay]]
