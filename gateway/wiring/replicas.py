"""This server among the other replicas of its installation: who holds what, links to the others, and the hand-over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Final

from gateway.config import ServerConfig, host_and_port
from gateway.hub.client import Hub
from gateway.hub.informer import Informer
from gateway.hub.leases import HubLeases, lease_of, lease_path
from gateway.hub.objects import HubObjects
from gateway.hub.source import Source
from gateway.hub.timing import InformerTiming, jitter
from gateway.replicas.cutoff import SIGHT, CutOff
from gateway.replicas.exchange import ask
from gateway.replicas.keeping import Keeping
from gateway.replicas.leading import CaughtUp
from gateway.replicas.leasemetrics import LeasesCollector
from gateway.replicas.podlabel import PodLabel
from gateway.replicas.settings import STANDBY
from gateway.wiring.part import Part, united
from gateway.wiring.several import Several
from gateway.wiring.sharing import Sharing
from gateway.wiring.tasks import Tasks
from stub.attachment import Attachment
from stub.leases.elected import Elected
from stub.leases.myself import Myself
from stub.leases.sharded import Sharded
from stub.ownership import Replica
from stub.peers.identity import PeerIdentity
from stub.sessions import Sessions
from tunnel.batch import Batch
from tunnel.calls import Method

SILENCE: Final = 10.0
"""Seconds without a word after which an agent leaves. In mode standby it is never longer than the Lease, so that one
that was paused for that reaches nobody; a shard's Lease is shorter, and there the holder's own look before each head,
and epochs, have to do.
"""
HANDED: Final = 3.0
"""Seconds for the other replicas to take over what this one has released, before it goes on to shut down."""

WATCHED: Final = InformerTiming(watch=300.0)
"""Leases are written all the time, and are listed, too: a watch that has fallen silent costs nothing but time."""


class Replicas(Several):
    """`authority` is the replicas' own (PEM: certificate and key), which all of them share."""

    def __init__(
        self, config: ServerConfig, hub: Hub, sessions: Sessions, batch: Batch, authority: bytes, sharing: Sharing
    ) -> None:
        self._config = config
        self._sharing = sharing
        self._hub = hub
        self._objects = HubObjects(hub.api)
        identity = config.replicas.own_identity()
        self._names = PeerIdentity(authority, identity, time.time)
        super().__init__(identity, sessions, batch, self._names.client, self._names.server)
        self.member: Elected | Sharded
        self.ownership: CaughtUp
        self.cutoff: CutOff
        self._label: PodLabel | None = None

    async def start(self, stack: AsyncExitStack, tasks: Tasks) -> None:
        """Listen to the other replicas, and begin to know who holds what."""
        config = self._config.replicas
        port = await self._door.start(*host_and_port(config.peers_listen))
        stack.push_async_callback(self._door.stop)
        store = HubLeases(self._objects, config.own_namespace(), self._config.leases.lease)
        self.member = self._member(config.own_peer_address(port), store)
        self.ownership = CaughtUp(self.member, self._sharing.caught_up)
        self.cutoff = CutOff(self.identity, self.member, partial(ask, self.peers), self._clock, self._changed)
        self._label = self._pod_label()
        self._begin(stack, tasks, self.member)
        runs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "leases": self.member.run,
            "leadership": self.ownership.run,
        }
        runs["whether others see the hub"] = self.cutoff.run
        runs["certificate for other replicas"] = self._names.run
        runs["watch of the leases"] = self._lease_watch(stack, store)
        if self._label is not None:
            runs["label of this replica's pod"] = self._label.run
        stack.push_async_callback(self.member.resign)  # who stops while he begins holds Leases already
        for name, run in runs.items():
            tasks.start(name, run)

    def _lease_watch(self, stack: AsyncExitStack, store: HubLeases) -> Callable[[], Coroutine[Any, Any, None]]:
        """So that a change counts when it happens, and a renewal from when it was made."""
        source = Source(lease_path(self._config.replicas.own_namespace()), store.selector)
        informer = Informer(self._hub.api, source, lease_of, jitter(), WATCHED)
        told = informer.subscribe(lambda _deltas: self.member.noticed(list(informer.items.values())))
        stack.callback(told)
        return informer.run

    def _member(self, address: str, store: HubLeases) -> Elected | Sharded:
        config, leases = self._config.replicas, self._config.leases
        me = Myself(self.identity, address, config.agents_address, randomness=random.random)
        return Elected(me, leases, store) if config.mode == STANDBY else Sharded(me, leases, store)

    def _pod_label(self) -> PodLabel | None:
        config = self._config.replicas
        if not config.label_pod:
            return None
        takes = (lambda: self.member.leading) if config.mode == STANDBY else (lambda: True)
        return PodLabel(self._objects, config.own_namespace(), self.identity, takes)

    # --- for the doors

    def attachment(self, single: Attachment) -> Attachment:
        """See `Several`."""
        config = self._config
        most = config.leases.duration if config.replicas.mode == STANDBY else SILENCE
        timing = replace(single.timing, silence=min(SILENCE, most))
        return super().attachment(replace(single, timing=timing, keeping=self._sharing.keeping))

    # --- what changes

    def _changed(self) -> None:
        super()._changed()
        if self._label is not None:
            self._label.look()

    def _linked(self) -> tuple[Replica, ...]:
        return self.cutoff.known(self.ownership.replicas())

    def _answers(self) -> Mapping[str, Method]:
        return {SIGHT: self.cutoff.answer}

    def _away(self) -> str | None:
        return self.cutoff.away

    # --- the end

    async def leave(self) -> None:
        """Hold nothing any more, and send agents and watches to who does."""
        await self.member.resign()
        await self._handing.emptied(HANDED, self._clock)
        await super().leave()

    # --- what others see

    @property
    def keeping(self) -> Keeping:
        """See `gateway.replicas.keeping`."""
        return self._sharing.keeping

    @property
    def shared(self) -> Part:
        """See `gateway.wiring.sharing`."""
        return self._sharing.part

    @property
    def part(self) -> Part:
        """See `gateway.wiring.part`."""
        own = Part(
            checks={"sight of the hub": lambda: self.cutoff.problem},
            warnings={"leases": lambda: self.member.problem},
            collectors=[LeasesCollector(self.member, self.ownership, self._config.leases.lease)],
        )
        return united([super().part, own])
