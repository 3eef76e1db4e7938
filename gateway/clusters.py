"""The port towards the stub: a cluster's name and a request's head become an exchange."""

from __future__ import annotations

from typing import Protocol

from tunnel.ports import Exchange, RequestBlock, ResponseSink


class Clusters(Protocol):
    """The agents' side of the server."""

    def open(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """Open an exchange on an available agent of `cluster`.

        The sink is not called before this returns. Raises StubError (NoAgent, SessionOverloaded, Draining) where
        nothing was sent.
        """
