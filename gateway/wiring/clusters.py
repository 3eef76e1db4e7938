"""Which clusters there are, their agents, and what is kept of and made in them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from auth.identity import Identity
from gateway.audit.log import AuditLogs
from gateway.config import ServerConfig
from gateway.hub import clusters as hubclusters
from gateway.hub.autojoin import Installer
from gateway.hub.client import Hub
from gateway.hub.join import HubJoin
from gateway.hub.objects import HubObjects
from gateway.hub.watch import HubWatch, jitter
from gateway.membership.agents import SessionsCollector
from gateway.membership.api import ClusterApi
from gateway.membership.clusterkeys import ClusterKeys, report_methods
from gateway.membership.lifecycle import Lifecycle, Times
from gateway.membership.registry import SqliteRegistry
from gateway.membership.stores import Stores
from gateway.serviceaccounts.api import ServiceAccountsApi
from gateway.serviceaccounts.files import FileProjection
from gateway.serviceaccounts.keeper import ServiceAccountKeeper
from gateway.serviceaccounts.secrets import Projections, SecretProjection
from gateway.serviceaccounts.store import ServiceAccountStore
from gateway.state import State
from gateway.wiring.authorization import Authorization
from gateway.wiring.part import Part
from gateway.wiring.tasks import Tasks
from stub.session import AgentInfo
from stub.sessions import Sessions
from tunnel.calls import CallFailed, Method, Params


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
    ) -> None:
        """`trusted` is PEM that agents shall trust."""
        self._trusted = trusted
        self._hub = hub
        self._version = version
        self._watch: HubWatch | None = None
        self._config = config
        self._state = state
        self._registry = registry
        self._sessions = sessions
        self._keeper: ServiceAccountKeeper | None = None
        self.keys = ClusterKeys(registry.database)
        self.accounts = ServiceAccountStore(registry.database)
        self.stores = Stores.of(registry)
        now, clock = time.time(), asyncio.get_running_loop().time
        self.lifecycle = Lifecycle(
            self.stores,
            state.agents_authority(now),
            config.enrolment,
            sessions,
            trusted,
            Times(clock, time.time),
            known=self._made_in,
            clean=self._clean_up,
        )
        self.keys.keep_only(registry.list())

    def methods(self, agent: AgentInfo) -> Mapping[str, Method]:
        """What an agent may call."""
        return report_methods(self.keys, agent, time.time)

    def subscribe(self, stack: AsyncExitStack) -> None:
        """Hear of clusters that come, change and go."""
        for subscriber in (self.lifecycle.attendance.changed, self.keys.changed):
            stack.callback(self._registry.subscribe(subscriber))

    def start(self, stack: AsyncExitStack, tasks: Tasks, audit: AuditLogs, new_id: Callable[[], str]) -> None:
        """Begin to keep managed service accounts and to join clusters by declaration, where that is wanted at all."""
        if self._config.service_accounts.enabled:
            self._keep_accounts(stack, tasks, audit, new_id)
        if self._config.auto_join.enabled and self._hub is not None:
            self._join(self._hub, tasks)

    def _keep_accounts(self, stack: AsyncExitStack, tasks: Tasks, audit: AuditLogs, new_id: Callable[[], str]) -> None:
        config, secrets = self._config.service_accounts, None
        if self._hub is not None and config.secret_namespaces:
            secrets = SecretProjection(HubObjects(self._hub.api), config.secret_namespaces)
            tasks.start("secrets of managed service accounts", secrets.run)
        files = FileProjection(config.directory or self._state.directory / "serviceaccounts")
        projection = Projections(files, secrets)
        keeper = ServiceAccountKeeper(self.accounts, projection, self._call, audit, new_id, time.time)
        keeper.keep_only(cluster.name for cluster in self._registry.list())
        stack.callback(self._registry.subscribe(keeper.changed))
        tasks.start("managed service accounts", keeper.run)
        self._keeper = keeper

    def _join(self, hub: Hub, tasks: Tasks) -> None:
        config = self._config.auto_join
        installer = Installer(config, self.stores, self._trusted, time.time, self._version)
        join = HubJoin(config.namespaces, installer, self._registry, HubObjects(hub.api), time.time)
        self._watch = HubWatch(hub.api, hubclusters.PATH, join.changed, jitter())
        tasks.start("ManagedClusters of the hub", self._watch.run)
        tasks.start("clusters that join", join.run)

    def part(self, authorization: Authorization) -> Part:
        """What others see of it; who may, `authorization` says."""
        api = self.api(authorization)

        def may(identity: Identity, cluster: str) -> bool:
            return authorization.owns(identity, cluster)

        enabled = self._config.service_accounts.enabled
        registered: Callable[[str], bool] = lambda name: self._registry.get(name) is not None  # noqa: E731
        accounts = ServiceAccountsApi(self.accounts, may, registered, enabled, time.time)
        part = Part(
            looks={"registry": self._look_at_registry, **self.lifecycle.looks()},
            routes=[*api.routes(), *accounts.routes()],
            collectors=[SessionsCollector(self._sessions)],
        )
        if self._config.auto_join.enabled:
            part.warnings["hub-clusters"] = lambda: self._watch.problem if self._watch else None
        return part

    def api(self, authorization: Authorization) -> ClusterApi:
        """The clusters as the management API shows them."""
        attached = self.lifecycle.attendance.attached
        return ClusterApi(self.stores, attached, authorization.reaches, authorization.manages, time.time)

    async def _look_at_registry(self) -> None:
        self._registry.poll()

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
