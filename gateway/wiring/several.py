"""A server that is one of several: links to the others, what is opened where, and whose agents come in by which door.

Who holds what, replicas know by Leases (`gateway.wiring.replicas`), workers by their parent (`gateway.workers`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from gateway.arrivals import AWAITED, Arrivals
from gateway.handover import Handover, ManagementPort
from gateway.replicas.exchange import NAME as QUESTION
from gateway.replicas.handing import Handing
from gateway.replicas.keeping import Keeping
from gateway.replicas.management import NAME, LeadersManagement
from gateway.replicas.peermetrics import PeersCollector
from gateway.replicas.placementmetrics import PlacementsCollector
from gateway.replicas.relayed import RelayedWatches
from gateway.replicas.routing import RoutedClusters
from gateway.wiring.otherreplicas import OtherReplicas
from gateway.wiring.part import Part
from gateway.wiring.tasks import Tasks
from stub.attaching import Attaching
from stub.attachment import Attachment
from stub.errors import Draining, Unheld
from stub.ownership import Ownership, Replica
from stub.peers import sessionid
from stub.peers.adopt import Adopting
from stub.peers.dial import PeerDialler
from stub.peers.door import PeersDoor, PeersSetting
from stub.peers.errors import PeerGone, PeerUnready
from stub.peers.limits import PeerLimits
from stub.peers.peers import Peers
from stub.placements import Placements
from stub.placing import WaitingRoom
from stub.sessions import Sessions
from tunnel.adapter import LinkConnection
from tunnel.batch import Batch
from tunnel.calls import Method
from tunnel.handshake import Challenge, Refused
from tunnel.ports import Exchange, RequestBlock, ResponseSink


class Several:
    """`client` and `server` are TLS between the others and this one; None where all are at Unix sockets."""

    ownership: Ownership
    clusters: RoutedClusters
    room: WaitingRoom
    others: OtherReplicas

    def __init__(
        self,
        identity: str,
        sessions: Sessions,
        batch: Batch,
        client: ssl.SSLContext | None = None,
        server: ssl.SSLContext | None = None,
    ) -> None:
        self.identity = identity
        self._sessions = sessions
        self._clock = asyncio.get_running_loop().time
        limits = PeerLimits()
        dialler = PeerDialler(identity, client, batch, limits)
        self.peers = Peers(dialler, self._clock)
        self.adopting = Adopting(dialler)
        self._dialled = dialler.counts
        self._placements = Placements()
        self._watches = RelayedWatches()
        setting = PeersSetting(identity, self._open_here, self._acceptance, self._closed, limits, self._clock)
        self._door = PeersDoor(setting, batch, server)
        passing = (Unheld, PeerGone, PeerUnready, Draining)
        self.arrivals = Arrivals(self._clock, passing, AWAITED, lambda cluster: bool(sessions.of(cluster)))
        self._handing: Handing
        self._attachment: Attachment | None = None
        self._management: LeadersManagement | None = None

    def _begin(self, stack: AsyncExitStack, tasks: Tasks, routes: Ownership) -> None:
        """`ownership` is there, and the door for the others is open. `routes` says where users' requests go."""
        self.clusters = RoutedClusters(routes, self._sessions, self.peers)
        self._handing = Handing(self.ownership, self._sessions, self._away)
        self.room = WaitingRoom(self.ownership, away=self._away)
        self.room.open()
        stack.callback(self.room.close)
        stack.callback(self.ownership.subscribe(self._changed))
        self.others = OtherReplicas(
            self.identity, self.ownership, self.peers, self._sessions, self._clock, self._answers()
        )
        tasks.start("peers", self.peers.run)
        tasks.start("adopted agents", self.adopting.run)

    # --- for the doors

    def agents_changed(self, cluster: str) -> None:
        """An agent has come or gone: the sessions' `on_change`, by way of the server."""
        self.arrivals.changed(cluster, len(self._sessions.of(cluster)))

    def attachment(self, single: Attachment) -> Attachment:
        """How agents are taken, by either door: those that another one passes on, too."""
        self._attachment = made = replace(
            single,
            ownership=self.ownership,
            room=self.room,
            adopter=self.adopting,
            placements=self._placements,
            reached=self.peers.ready,
            session_id=partial(sessionid.make, self.identity),
            elsewhere=self.elsewhere,
        )
        return made

    def manage(self, here: Handover) -> ManagementPort:
        """See `gateway.gateway.GatewayParts`."""
        self._management = made = LeadersManagement(here, self.ownership, self.peers)
        return made

    def elsewhere(self, session: str) -> Replica | None:
        """See `stub.attachment.Attachment`."""
        others = {one.identity: one for one in self.ownership.replicas() if one.identity != self.identity}
        found = sessionid.is_of(session, others)
        return others[found] if found is not None else None

    def _acceptance(self, challenge: Challenge, via: str) -> Attaching:
        if self._attachment is None:
            raise Refused("standby", "this replica is still starting", retry_after=1)
        return Attaching(self._attachment, challenge, via)

    def _closed(self, connection: LinkConnection) -> None:
        if self._attachment is not None:
            self._attachment.links.discard(connection)

    def _open_here(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        if cluster == QUESTION:
            return self.others.answering.open(head, sink)
        if cluster == NAME:
            if self._management is None:
                raise Draining("", "this replica is still starting; try again")
            return self._management.open_here(head, sink)
        told = self._watches.sink(head, sink)
        return self._watches.opened(told, self.clusters.open_here(cluster, head, told))

    # --- what changes

    def _changed(self) -> None:
        self.peers.tell(self._linked())
        self._handing.look()
        self.arrivals.moved()

    def _linked(self) -> tuple[Replica, ...]:
        """Those to whom links are kept."""
        return self.ownership.replicas()

    def _answers(self) -> Mapping[str, Method]:
        """What this one answers to the others besides."""
        return {}

    def _away(self) -> str | None:
        """See `gateway.replicas.cutoff.CutOff.away`."""
        return None

    # --- the end

    async def leave(self) -> None:
        """Send agents and watches elsewhere, and take nothing new of the others'."""
        self._sessions.drain()
        self._watches.end()
        self._door.drain()

    async def finish(self, patience: float) -> None:
        """Wait for what the others still have under way here."""
        deadline = self._clock() + patience
        while self._door.busy and self._clock() < deadline:
            self._watches.end()
            await asyncio.sleep(0.1)

    # --- what others see

    @property
    def keeping(self) -> Keeping | None:
        """See `gateway.replicas.keeping`."""
        return None

    @property
    def shared(self) -> Part:
        """What there is to be told of stores that are kept alike."""
        return Part()

    @property
    def part(self) -> Part:
        """See `gateway.wiring.part`."""
        placements = PlacementsCollector(self._placements, self.room, self.adopting)
        return Part(collectors=[placements, PeersCollector(self.peers, self._door, self._dialled, self.clusters)])
