"""A session as the agent holds it: its multiplexer, and what runs as long as the shared link does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.address import Target
from agent.relay import Relay
from tunnel.adapter import LinkConnection
from tunnel.agentmux import AgentMux
from tunnel.calls import Calls, Method, Params
from tunnel.drain import ALL, Drain
from tunnel.exchange import TunnelExchange
from tunnel.handshake import Challenge
from tunnel.link import Link
from tunnel.messages import Message, encode_message

CROWD = 2
"""From this many exchanges on, waiting for the end of the loop's turn saves more than it delays."""
TOLD = 2.0
"""Seconds for which an agent that stops waits for its stub to know."""


class HealthReport(Protocol):
    """What `agent.health` found."""

    @property
    def ready(self) -> bool: ...
    @property
    def message(self) -> str: ...
    @property
    def latency_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session is to the stub. `secret` proves that own links, and a successor, are the same agent's."""

    session: str
    secret: bytes = field(repr=False)


class AgentSession:
    """Ends when its shared link does. `links_at` is where its own links go."""

    def __init__(
        self,
        mux: AgentMux,
        challenge: Challenge,
        identity: Identity,
        methods: Mapping[str, Method],
        links_at: Target,
    ) -> None:
        self.mux = mux
        self.calls = Calls(mux.shared.message, methods, lambda error: mux.on_bug(None, error))
        self.challenge = challenge
        self.identity = identity
        self.links_at = links_at
        self.draining = False
        self.replaced = False
        """The stub wants its agent to attach elsewhere (at `sent_to`, where it says so)."""
        self.sent_to = ""
        self.succeeded = False
        """Another session takes what is new: watches go there, too."""
        self._left = asyncio.Event()
        self._ended = asyncio.Event()
        self.reason = ""
        self._connections: list[LinkConnection] = []
        self._shared: LinkConnection | None = None
        self._marks: deque[tuple[float, int]] = deque()
        self._mark = 0
        self.alive = 0
        """The API server was seen alive when this exchange, and all before it, had come (agent.silence)."""

    def attach_shared(self, connection: LinkConnection) -> Link:
        """The dialled connection becomes the shared link."""
        self._shared = connection
        self._connections.append(connection)
        connection.attach(self.mux.shared, self._detached, self._crowded)
        return self.mux.shared

    def attach_own(self, link_id: int, connection: LinkConnection) -> Link:
        """A further connection becomes an own link."""
        self._connections = [one for one in self._connections if one.transport is not None]
        self._connections.append(connection)
        link = Link(self.mux, own=True, link_id=link_id, limits=self.mux.limits)
        connection.attach(link, self.mux.detach, _never)
        self.mux.attach(link)
        return link

    @property
    def own_connections(self) -> int:
        """Own links whose connections are not closed: those in use, and those that are being ended."""
        return sum(one.transport is not None and one is not self._shared for one in self._connections)

    def _crowded(self) -> bool:
        return len(self.mux.exchanges) > CROWD

    def _detached(self, link: Link, reason: str) -> None:
        self.reason = reason
        self.mux.detach(link, reason)
        self.calls.close(reason)
        self._end()

    def _end(self) -> None:
        self._ended.set()
        self._left.set()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    async def left(self) -> None:
        """Wait until another session is wanted: this one has ended, or is handed over."""
        await self._left.wait()

    async def ended(self) -> str:
        """Wait for the end of the session; gives the reason."""
        await self._ended.wait()
        return self.reason

    async def sweep(self) -> None:
        """Drive the session's deadlines until it ends."""
        loop = asyncio.get_running_loop()
        while not self._ended.is_set():
            self.mux.sweep(loop.time())
            if self.succeeded:
                self._conclude()
            await asyncio.sleep(self.mux.timing.sweep)

    def on_message(self, message: Message) -> None:
        """A control message of the stub's."""
        if message["kind"] == "drain" and not self.draining:
            self.draining = self.replaced = True
            self.sent_to = Drain.parse(message).address
            self._left.set()
        else:
            self.calls.on_message(message)

    async def call(self, method: str, params: Params, timeout: float = 10.0) -> Params:
        """Ask the stub something rare. Raises `tunnel.calls.CallFailed`."""
        return await self.calls.call(method, params, timeout)

    def tell_health(self, report: HealthReport) -> None:
        """Report a round trip to the API server."""
        fields = {"ready": report.ready, "message": report.message[:1024], "latencyMs": report.latency_ms}
        self.mux.shared.message(encode_message("health", **fields))

    async def drain(self, patience: float) -> None:
        """Shut down in order: take nothing new, let what is under way finish, for at most `patience` seconds.

        The stub is told first, and what it had sent until it knew is taken, too: nobody's request is refused.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        self.mux.shared.message(Drain(ALL).encode())
        answered = self.mux.pongs
        self.mux.ping()
        await self._until(lambda: self.mux.pongs > answered, min(deadline, loop.time() + TOLD))
        self.mux.drain()
        self.mux.shared.message(Drain(self.mux.highest).encode())
        await self._until(self._finished, deadline)

        await self._told_all(min(deadline, loop.time() + TOLD))

    def _finished(self) -> bool:
        self._conclude()
        return not self.mux.exchanges

    def _conclude(self) -> None:
        """Watches would go on for ever: they end where it does no harm, and are begun again over another session."""
        for exchange in tuple(self.mux.exchanges.values()):
            if isinstance(exchange.sink, Relay):
                exchange.sink.conclude()

    async def _told_all(self, deadline: float) -> None:
        """The end of the shared link ends the session, and must not overtake what was said last on the own links."""
        for link in tuple(self.mux.own_links.values()):
            link.finish("the agent is stopping")
        await self._until(lambda: not self.own_connections, deadline)

    async def _until(self, question: Callable[[], bool], deadline: float) -> None:
        """Exchanges and PINGs end in callbacks; a look now and then, while shutting down, is enough."""
        clock = asyncio.get_running_loop().time
        while not question() and not self.over and clock() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def close(self, reason: str) -> None:
        """End the session now."""
        self.mux.close(reason)
        self._end()

    async def gone(self, patience: float = 3.0) -> None:
        """Wait until its connections are closed. Those with nothing left to send that take too long are aborted."""
        deadline = asyncio.get_running_loop().time() + patience
        while open_ones := [connection for connection in self._connections if connection.transport is not None]:
            late = asyncio.get_running_loop().time() >= deadline
            if late and not any(connection.unsent for connection in open_ones):
                for connection in open_ones:
                    connection.abort("the session has ended")
                return
            await asyncio.sleep(0.02)

    # --- an API server that answers nobody (agent.silence)

    def look(self, patience: float) -> None:
        """Mark what is there now; `waiting` goes by the last look that is `patience` seconds ago."""
        now, marks = asyncio.get_running_loop().time(), self._marks
        marks.append((now, self.mux.highest))
        while marks and now - marks[0][0] >= patience:
            self._mark = marks.popleft()[1]

    def waiting(self, beyond: int = 0) -> list[TunnelExchange]:
        """Exchanges that have been under way for that long, newest first, of which nothing was sent back;
        `beyond` leaves out that id and all before it.
        """
        found, mark = [], self._mark
        if mark > beyond:
            for one in reversed(self.mux.exchanges.values()):  # ids rise
                if one.id <= beyond:
                    break
                if one.id <= mark and not one.started and not one.reset:
                    found.append(one)
        return found


def _never() -> bool:
    return False
