"""A session as the agent holds it: its multiplexer, and what runs as long as the shared link does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tunnel.adapter import LinkConnection
from tunnel.agentmux import AgentMux
from tunnel.calls import Calls, Method, Params
from tunnel.exchange import TunnelExchange
from tunnel.handshake import Challenge
from tunnel.link import Link
from tunnel.messages import Message, encode_message

CROWD = 2
"""From this many exchanges on, waiting for the end of the loop's turn saves more than it delays."""


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
    """Ends when its shared link does. `replaced` is set when the stub wants its agent to attach elsewhere.

    `name` is the host that was dialled: own links go there too.
    """

    def __init__(
        self, mux: AgentMux, challenge: Challenge, identity: Identity, methods: Mapping[str, Method] | None = None
    ) -> None:
        self.mux = mux
        self.calls = Calls(mux.shared.message, methods or {}, lambda error: mux.on_bug(None, error))
        self.challenge = challenge
        self.identity = identity
        self.name = ""
        self.draining = False
        self.replaced = asyncio.Event()
        self._ended = asyncio.Event()
        self.reason = ""
        self._connections: list[LinkConnection] = []
        self._marks: deque[tuple[float, int]] = deque()
        self._mark = 0
        self.alive = 0
        """The API server was seen alive when this exchange, and all before it, had come (agent.silence)."""

    def attach_shared(self, connection: LinkConnection) -> Link:
        """The dialled connection becomes the shared link."""
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

    def _crowded(self) -> bool:
        return len(self.mux.exchanges) > CROWD

    def _detached(self, link: Link, reason: str) -> None:
        self.reason = reason
        self.mux.detach(link, reason)
        self.calls.close(reason)
        self._ended.set()

    async def ended(self) -> str:
        """Wait for the end of the session; gives the reason."""
        await self._ended.wait()
        return self.reason

    async def sweep(self) -> None:
        """Drive the session's deadlines until it ends."""
        loop = asyncio.get_running_loop()
        while not self._ended.is_set():
            self.mux.sweep(loop.time())
            await asyncio.sleep(self.mux.timing.sweep)

    def on_message(self, message: Message) -> None:
        """A control message of the stub's."""
        if message["kind"] == "drain" and not self.draining:
            self.draining = True
            self.replaced.set()
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
        """Shut down in order: take nothing new, let what is under way finish, for at most `patience` seconds."""
        self.mux.drain()
        self.mux.shared.message(encode_message("drain", last=self.mux.highest))
        deadline = asyncio.get_running_loop().time() + patience
        # exchanges end in callbacks; a look each 50 ms, while shutting down, is enough
        while self.mux.exchanges and not self._ended.is_set() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def close(self, reason: str) -> None:
        """End the session now."""
        self.mux.close(reason)
        self._ended.set()

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
