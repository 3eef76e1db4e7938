"""The port towards the stub where there are several replicas: an exchange is opened here, or at the one that holds
the cluster. At most one hop: what another replica brings is opened here or nowhere.
"""

from __future__ import annotations

from typing import Protocol

from gateway.clusters import Clusters
from gateway.retry import repeatable
from stub.errors import Unheld
from stub.ownership import Ownership
from stub.peers.holding import held_here
from tunnel.ports import Exchange, RequestBlock, ResponseSink
from tunnel.requestinfo import request_info


class Peers(Protocol):
    """stub.peers.peers.Peers."""

    def open(self, replica: str, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """Open an exchange at another replica. Raises StubError: nothing has left."""
        ...


class RoutedClusters:
    """See `gateway.clusters.Clusters`. Each time the holder's own deadline is looked at: a Lease is no fence."""

    def __init__(self, ownership: Ownership, here: Clusters, peers: Peers) -> None:
        self._ownership = ownership
        self._here = here
        self._peers = peers
        self._held_here = held_here(ownership, here.open)
        self.sent = self.taken = 0
        """Exchanges that were opened at other replicas, and here for others."""

    def open(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """See `Clusters`."""
        place = self._ownership.place(cluster)
        if place.mine:
            return self._here.open(cluster, head, sink)
        if not place.replica:
            raise Unheld(cluster, f"no replica has the agents of cluster {cluster!r} at present; try again")
        exchange = self._peers.open(place.replica, cluster, head, sink)
        self.sent += 1
        return exchange

    def open_here(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """What another replica asks for."""
        path, _, query = head.target.partition(b"?")
        head.repeatable = repeatable(head, request_info(head.method.decode("ascii"), path, query))  # it does not travel
        exchange = self._held_here(cluster, head, sink)
        self.taken += 1
        return exchange
