"""The agents' door: a TLS listener whose connections become links."""

from __future__ import annotations

import asyncio
import ssl

from stub.attaching import Attaching, Attachment
from tunnel.adapter import LinkConnection
from tunnel.batch import Batch
from tunnel.carriage import WebSocketServer
from tunnel.sockets import tune

MAX_GREETING = 1_000
"""Connections that may be on their way to a link at a time."""


class AgentsDoor:
    """Listens, and greets. The sessions live on in `setting.sessions`."""

    def __init__(self, setting: Attachment, batch: Batch, tls: ssl.SSLContext) -> None:
        self.setting = setting
        self.batch = batch
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._greeting: set[LinkConnection] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; gives the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connection, host, port, ssl=self._tls, backlog=1024, ssl_handshake_timeout=10.0
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def _connection(self) -> asyncio.Protocol:
        """Not counted yet: nobody tells of a connection whose TLS handshake fails."""
        return _AgentConnection(self)

    def admit(self, connection: LinkConnection) -> bool:
        """A connection's TLS is up, and its greeting begins. False: there are too many; back-off brings it again."""
        if len(self._greeting) >= MAX_GREETING:
            return False
        self._greeting.add(connection)
        return True

    def greeted(self, connection: LinkConnection) -> None:
        """A connection that was admitted is a link, or gone."""
        self._greeting.discard(connection)

    async def stop(self) -> None:
        """Take no new connections, and let go of those that are no links yet; links are the sessions' to end."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._greeting):
            connection.abort("the server is stopping")


class _AgentConnection(LinkConnection):
    def __init__(self, door: AgentsDoor) -> None:
        self._door = door
        self._attaching = Attaching(door.setting)
        super().__init__(WebSocketServer(), self._attaching, door.batch, door.setting.limits, door.setting.timing)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._door.admit(self):
            self.abort("too many greetings are under way")
            super().connection_made(transport)
            return
        tune(transport)
        self._attaching.begin(self, lambda: self._door.greeted(self))
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._door.setting.links.discard(self)
        super().connection_lost(exc)
