"""The bytes of a request behind its head: held until they may go, framed, written; or thrown away once
nobody wants them.

Before a connection is there, and before the 101 of an upgrade, they are held; what bounds them is the
credit that is not granted again while they are.
"""

from __future__ import annotations

from agent.request import RequestBody
from agent.upstream import UpstreamConnection

DISCARDED_MAX = 1024 * 1024
"""How much is still taken after the answer. Beyond it credit is kept back, and that stops the peer."""


class Outgoing:
    """One request's body, or the client's half of a hijacked stream. `ended`: its last byte has come."""

    __slots__ = ("_body", "_connection", "_discarded", "_discarding", "_held", "ended")

    def __init__(self, length: int | None) -> None:
        self._body: RequestBody | None = RequestBody(length)
        self._connection: UpstreamConnection | None = None
        self._held: list[bytes] = []
        self._discarding = False
        self._discarded = 0
        self.ended = False

    def take(self, data: bytes) -> int:
        """Bytes from the link; gives how many were thrown away. Raises BodyMismatch."""
        if self._discarding:
            return self._discard(len(data))
        if self._connection is None:
            self._held.append(data)
        else:
            framed = data if self._body is None else self._body.frame(data)
            self._connection.write(framed, len(data))
        return 0

    def end(self) -> None:
        """The last byte was taken. Raises BodyMismatch for a body that is too short."""
        self.ended = True
        if self._connection is not None and self._body is not None:
            self._finish(self._connection, self._body)

    def open(self, connection: UpstreamConnection) -> None:
        """The head is written: the body follows. Raises BodyMismatch."""
        self._connection = connection
        held, self._held = self._held, []
        for data in held:
            self.take(data)
        if self.ended and self._body is not None:
            self._finish(connection, self._body)

    def switch(self, connection: UpstreamConnection) -> None:
        """A checked 101: from here on bytes are opaque."""
        self._body = None
        self.open(connection)

    def stop(self) -> int:
        """Nobody reads any more: throw away what is held, and what comes; gives how much that was."""
        self._connection = None
        self._discarding = True
        held, self._held = self._held, []
        return self._discard(sum(map(len, held)))

    def _discard(self, count: int) -> int:
        self._discarded += count
        return count if self._discarded <= DISCARDED_MAX else 0

    def _finish(self, connection: UpstreamConnection, body: RequestBody) -> None:
        self._body = None
        end = body.end()
        if end:
            connection.write(end)
