"""The clusters at the hub: their ManagedClusters, and their heartbeats' Leases."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from gateway.config import ServerConfig
from gateway.hub import clusters as hubclusters
from gateway.hub import heartbeatlease
from gateway.hub.autojoin import Installer
from gateway.hub.client import Hub
from gateway.hub.heartbeatlease import HeartbeatLease, HeartbeatObserver
from gateway.hub.heartbeats import HeartbeatLeases, HeartbeatSettings, has_ocm
from gateway.hub.informer import Informer, jitter
from gateway.hub.informermetrics import InformersCollector
from gateway.hub.managedclusters import Clocks, ManagedClusters
from gateway.hub.objects import HubObjects, HubUnavailable
from gateway.membership.heartbeats import Heartbeats, Renewal
from gateway.membership.lifecycle import Shared
from gateway.membership.stores import Stores
from gateway.wiring.tasks import Tasks
from stub.ownership import Ownership

_PAUSE = 5.0


class HubClusters:
    """`shared` is for the lifecycle, from the start on; everything else begins with `start`."""

    def __init__(self, config: ServerConfig, ownership: Ownership) -> None:
        self._config = config
        self._ownership = ownership
        self._clock = asyncio.get_running_loop().time
        self._managed: ManagedClusters | None = None
        self._several = False
        self._informers: InformersCollector
        self._leases: Informer[HeartbeatLease] | None = None
        self._observer = HeartbeatObserver(self._clock)
        self.shared = Shared(lambda: ownership.leading, self._elsewhere, self._keeps)

    def start(
        self,
        hub: Hub,
        stores: Stores,
        heartbeats: Heartbeats,
        installer: Installer | None,
        stack: AsyncExitStack,
        tasks: Tasks,
        informers: InformersCollector,
    ) -> None:
        """Begin, as far as the settings want it."""
        self._informers = informers
        registers, namespaces = self._config.hub.clusters, self._config.auto_join.namespaces
        if not registers and installer is None:
            return
        objects = HubObjects(hub.api)
        informer = Informer(hub.api, hubclusters.SOURCE, hubclusters.declared, jitter())
        informers.add("clusters", informer)
        leading = self.shared.leading
        clocks = Clocks(self._clock, time.time)
        managed = ManagedClusters(objects, informer, stores, clocks, leading, registers, installer, namespaces)
        self._managed = managed
        for end in managed.begin():
            stack.callback(end)
        for name, run in managed.tasks().items():
            tasks.start(name, run)
        if registers:
            self._beat(hub, objects, stores, heartbeats, stack, tasks)

    def _beat(
        self, hub: Hub, objects: HubObjects, stores: Stores, heartbeats: Heartbeats, stack: AsyncExitStack, tasks: Tasks
    ) -> None:
        config, managed, registry = self._config, self._managed, stores.registry
        assert managed is not None
        namespace, installation = config.replicas.own_namespace() or "kulvert", config.leases.lease
        settings = HeartbeatSettings(namespace, installation, config.replicas.own_identity())
        leases = HeartbeatLeases(
            objects,
            heartbeats,
            settings,
            mine=lambda name: self._ownership.place(name).mine,
            registered=lambda name: registry.get(name) is not None,
            duration=managed.lease_duration,
            leading=self.shared.leading,
            clock=self._clock,
            randomness=jitter(),
        )
        heartbeats.subscribe(leases.heard)
        stack.callback(registry.subscribe(leases.changed))
        tasks.start("heartbeats of clusters", leases.run)
        if config.replicas.several:
            self._several = True

            async def observe() -> None:
                await self._observe(hub, objects, settings)

            tasks.start("heartbeats of clusters elsewhere", observe)

    async def _observe(self, hub: Hub, objects: HubObjects, settings: HeartbeatSettings) -> None:
        """With OCM they are in many namespaces."""
        while self._leases is None:
            try:
                namespace = "" if await has_ocm(objects) else settings.namespace
            except HubUnavailable:
                await asyncio.sleep(_PAUSE)
                continue
            source = heartbeatlease.source(settings.installation, namespace)
            self._leases = Informer(hub.api, source, heartbeatlease.heartbeat_lease, jitter())
            self._leases.subscribe(self._observer.hear)
            self._informers.add("heartbeats", self._leases)
        await self._leases.run()

    @property
    def problem(self) -> str | None:
        """For the readiness' details."""
        known = [one.problem for one in (self._managed, self._leases) if one is not None]
        return "; ".join(one for one in known if one) or None

    def _elsewhere(self, cluster: str) -> Renewal | None:
        if not self._several or self._ownership.place(cluster).mine:
            return None
        return self._observer.renewal(cluster)

    def _keeps(self, cluster: str) -> bool:
        return self._managed is not None and self._managed.keeps(cluster)
