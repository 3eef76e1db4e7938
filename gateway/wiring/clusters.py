"""Which clusters there are, their agents, and what is kept of and made in them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

from auth.authorityfile import LiveAuthority
from auth.identity import Identity
from gateway.audit.log import AuditLogs
from gateway.config import ServerConfig
from gateway.hub.autojoin import Installer
from gateway.hub.client import Hub
from gateway.hub.informermetrics import InformersCollector
from gateway.hub.objects import HubObjects
from gateway.management import Attached
from gateway.membership.agents import SessionsCollector
from gateway.membership.api import ClusterApi
from gateway.membership.clusterkeys import ClusterKeys, report_methods
from gateway.membership.lifecycle import Lifecycle, Shared, Times
from gateway.membership.registry import SqliteRegistry
from gateway.membership.stores import Stores
from gateway.membership.view import Object
from gateway.serviceaccounts.api import ServiceAccountsApi
from gateway.serviceaccounts.files import FileProjection
from gateway.serviceaccounts.keeper import ServiceAccountKeeper
from gateway.serviceaccounts.secrets import Projections, SecretProjection
from gateway.serviceaccounts.store import ServiceAccountStore
from gateway.state import State
from gateway.wiring.authorization import Authorization
from gateway.wiring.hubclusters import HubClusters
from gateway.wiring.otherreplicas import OtherReplicas
from gateway.wiring.part import Part
from gateway.wiring.tasks import Tasks
from stub.ownership import Alone, Ownership
from stub.session import AgentInfo
from stub.sessions import Sessions
from tunnel.calls import CallFailed, Method, Params

UNKNOWN = Attached(message="not known at present: the replica that has its agents does not answer")


class Clusters:
    """`lifecycle.authority` is what the agents' door asks; `keys` are the clusters' own issuers of tokens."""

    def __init__(
        self,
        config: ServerConfig,
        state: State,
        registry: SqliteRegistry,
        sessions: Sessions,
        trusted: Callable[[], str],
        hub: Hub | None,
        version: str,
        ownership: Ownership | None = None,
        replicas: OtherReplicas | None = None,
    ) -> None:
        """`trusted` is PEM that agents shall trust."""
        self._replicas = replicas
        self._trusted = trusted
        self._hub = hub
        self._version = version
        self._at_hub = HubClusters(config, ownership or Alone(config.replicas.own_identity(), 0))
        self._config = config
        self._state = state
        self._registry = registry
        self._sessions = sessions
        self._keeper: ServiceAccountKeeper | None = None
        self.keys = ClusterKeys(registry.database)
        self.accounts = ServiceAccountStore(registry.database)
        self.stores = Stores.of(registry)
        now, clock = time.time(), asyncio.get_running_loop().time
        self._agents_authority = LiveAuthority(state.agents, now)
        self.lifecycle = Lifecycle(
            self.stores,
            self._agents_authority,
            config.enrolment,
            sessions,
            trusted,
            Times(clock, time.time),
            known=self._made_in,
            clean=self._clean_up,
            shared=self._shared(),
        )
        self.keys.keep_only(registry.list())

    def _shared(self) -> Shared:
        shared, replicas = self._at_hub.shared, self._replicas
        if replicas is None:
            return shared
        leases = self._config.hub.clusters and self._config.replicas.several
        if not leases:  # by which the leader would know
            shared = replace(shared, elsewhere=replicas.renewal)
        return replace(shared, others=replicas, presence=replicas.presence)

    def methods(self, agent: AgentInfo) -> Mapping[str, Method]:
        """What an agent may call."""
        return {**report_methods(self.keys, agent, time.time), **self.lifecycle.heartbeats.methods(agent)}

    def subscribe(self, stack: AsyncExitStack) -> None:
        """Hear of clusters that come, change and go."""
        for subscriber in (self.lifecycle.attendance.changed, self.keys.changed):
            stack.callback(self._registry.subscribe(subscriber))

    def start(
        self,
        stack: AsyncExitStack,
        tasks: Tasks,
        audit: AuditLogs,
        new_id: Callable[[], str],
        informers: InformersCollector,
    ) -> None:
        """Begin to keep managed service accounts and to join clusters by declaration, where that is wanted at all."""
        if self._replicas is not None:
            self._replicas.start(self.lifecycle.presence, self.lifecycle.heartbeats, stack, tasks)
        if self._config.service_accounts.enabled:
            self._keep_accounts(stack, tasks, audit, new_id)
        if self._hub is not None:
            config, heartbeats = self._config.auto_join, self.lifecycle.heartbeats
            known = (config, self.stores, self._trusted, time.time, self._version)
            installer = Installer(*known) if config.enabled else None
            self._at_hub.start(self._hub, self.stores, heartbeats, installer, stack, tasks, informers)

    def _keep_accounts(self, stack: AsyncExitStack, tasks: Tasks, audit: AuditLogs, new_id: Callable[[], str]) -> None:
        config, secrets = self._config.service_accounts, None
        if self._hub is not None and config.secret_namespaces:
            secrets = SecretProjection(HubObjects(self._hub.api), config.secret_namespaces)
            tasks.start("secrets of managed service accounts", secrets.run)
        files = FileProjection(config.directory or self._state.directory / "serviceaccounts")
        projection = Projections(files, secrets)
        keeper = ServiceAccountKeeper(
            self.accounts,
            projection,
            self._call,
            audit,
            new_id,
            time.time,
            leading=self._at_hub.shared.leading,
            registered=lambda: [cluster.name for cluster in self._registry.list()],
        )
        stack.callback(self._registry.subscribe(keeper.changed))
        tasks.start("managed service accounts", keeper.run)
        self._keeper = keeper

    def part(self, authorization: Authorization) -> Part:
        """What others see of it; who may, `authorization` says."""
        api = self.api(authorization)

        def may(identity: Identity, cluster: str) -> bool:
            return authorization.owns(identity, cluster)

        enabled = self._config.service_accounts.enabled
        registered: Callable[[str], bool] = lambda name: self._registry.get(name) is not None  # noqa: E731
        accounts = ServiceAccountsApi(self.accounts, may, registered, enabled, time.time)
        part = Part(
            looks={
                "registry": self._look_at_registry,
                "agents-authority": self._look_at_agents_authority,
                **self.lifecycle.looks(),
            },
            routes=[*api.routes(), *accounts.routes()],
            collectors=[SessionsCollector(self._sessions)],
        )
        if self._config.auto_join.enabled or self._config.hub.clusters:
            part.warnings["hub-clusters"] = lambda: self._at_hub.problem
        return part

    def api(self, authorization: Authorization) -> ClusterApi:
        """The clusters as the management API shows them."""
        known = (self.stores, self.attached, authorization.reaches, authorization.manages, time.time)
        return ClusterApi(*known, reports=self._reports, refresh=self.refresh)

    async def refresh(self, clusters: Collection[str]) -> None:
        """Before `attached` is asked about them."""
        if self._replicas is not None:
            await self._replicas.attendance.refresh(clusters)

    def attached(self, cluster: str) -> Attached:
        """A cluster's agents, to whichever replica they are attached."""
        if self._replicas is None or not self._replicas.has(cluster):
            return self.lifecycle.attendance.attached(cluster)
        seen = self._replicas.attendance.seen(cluster)
        return seen.attached if seen is not None else UNKNOWN

    def _reports(self, cluster: str) -> list[Object]:
        if self._replicas is None or not self._replicas.has(cluster):
            return [one.shown() for one in self.lifecycle.heartbeats.of(cluster)]
        seen = self._replicas.attendance.seen(cluster)
        return [dict(one) for one in seen.reports] if seen is not None else []

    async def _look_at_registry(self) -> None:
        self._registry.poll()

    async def _look_at_agents_authority(self) -> None:
        self._agents_authority.poll()

    async def _call(self, cluster: str, method: str, params: Params) -> Params:
        agents = self.lifecycle.agents(cluster)
        if not agents:
            raise CallFailed("unavailable", f"no agent of cluster {cluster!r} is connected")
        return await agents[0].call(method, params)

    async def _clean_up(self, cluster: str, by: str) -> None:
        """Managed service accounts go with their cluster, and are not made again while it goes."""
        if self._keeper is not None:
            await self._keeper.clean_up(cluster, by)

    def _made_in(self, cluster: str) -> list[str]:
        wanted = [one.wanted for one in self.accounts.list() if one.wanted.cluster == cluster]
        return [f"ServiceAccount {one.namespace}/{one.name}" for one in wanted]
