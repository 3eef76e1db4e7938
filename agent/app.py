"""A whole agent, composed from its settings: the only place where its parts are wired together."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Mapping

import structlog

from agent import kubeconfig
from agent.access import Access, verifying_context
from agent.address import Allowed
from agent.attach import Agent, Attaching
from agent.backoff import BackOff
from agent.clusterid import ClusterIdError, cluster_id
from agent.dial import Dialler, DialSettings
from agent.health import HEALTH_POOL, Health, HealthTiming
from agent.incluster import InCluster
from agent.links import LinkPoolLimits
from agent.policy import LocalPolicy
from agent.pool import PoolLimits, UpstreamPool
from agent.proxies import Proxies
from agent.relay import Relay
from agent.settings import ConfigError, Settings
from agent.silence import PING_POOL, Silence, SilenceTiming
from tunnel.batch import Batch
from tunnel.ports import AgentExchange, RequestBlock, RequestSink

log = structlog.get_logger("kulvert.agent")

PATIENT = 1.5
"""The back-off's growth: whoever was away for some seconds finds its agents again within half of that."""


class AgentApp:
    """`run` is its life, `stop` ends it in order. Raises ConfigError or NoAccess where the settings cannot work."""

    def __init__(self, settings: Settings, version: str, env: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._version = version
        self._env = env
        self._access = _access(settings, env)
        self._stopping = asyncio.Event()
        self.agent: Agent | None = None

    async def run(self) -> None:
        """Learn the cluster's id, attach, and serve until `stop`."""
        batch = Batch(asyncio.get_running_loop().call_soon)
        pool = self._pool(batch, PoolLimits(connections=self._settings.upstream_connections))
        questions = self._pool(batch, HEALTH_POOL)
        try:
            uid = await self._cluster_id(questions)
            if uid:
                await self._serve(batch, pool, questions, uid)
        finally:
            await pool.close()
            await questions.close()

    def stop(self) -> None:
        """Finish what is under way, then end `run`."""
        self._stopping.set()

    async def _serve(self, batch: Batch, pool: UpstreamPool, questions: UpstreamPool, uid: str) -> None:
        agent = self.agent = self._agent(batch, pool, uid)
        health = Health(questions, agent.tell_health, HealthTiming())
        silence = Silence(lambda: tuple(agent.sessions), lambda: self._pool(batch, PING_POOL), SilenceTiming())
        async with asyncio.TaskGroup() as group:
            work = [
                group.create_task(agent.run(), name="agent: attach"),
                group.create_task(health.run(), name="agent: health"),
                group.create_task(silence.run(), name="agent: silence"),
            ]
            await self._stopping.wait()
            await agent.drain()
            for task in work:
                task.cancel()

    async def _cluster_id(self, questions: UpstreamPool) -> str:
        backoff = BackOff(random.random)
        while not self._stopping.is_set():
            try:
                return await cluster_id(questions)
            except ClusterIdError as error:
                log.error("cannot read the cluster's id", error=str(error))
            try:
                async with asyncio.timeout(backoff.next()):
                    await self._stopping.wait()
            except TimeoutError:
                continue
        return ""

    def _pool(self, batch: Batch, limits: PoolLimits) -> UpstreamPool:
        return UpstreamPool(self._access, batch, limits, asyncio.get_running_loop(), random.random)

    def _agent(self, batch: Batch, pool: UpstreamPool, uid: str) -> Agent:
        settings = self._settings
        policy = LocalPolicy(settings.allow_protected)

        def relay(exchange: AgentExchange, head: RequestBlock) -> RequestSink:
            made = Relay(exchange, pool, policy)
            made.start(head)
            return made

        setting = Attaching(
            cluster=settings.cluster,
            cluster_id=uid,
            agent=settings.agent or socket.gethostname(),
            token_id=settings.join_token.id,
            join_key=settings.join_token.key(),
            software=f"kulvert/{self._version}",
            exchanges=settings.exchanges,
            links=LinkPoolLimits(most=settings.max_links),
            patience=float(settings.drain),
        )
        return Agent(setting, Dialler(self._dial()), relay, batch, BackOff(random.random, factor=PATIENT))

    def _dial(self) -> DialSettings:
        settings = self._settings
        try:
            ca = settings.ca_file.read_text() if settings.ca_file else None
        except OSError as error:
            raise ConfigError(f"cannot read caFile, {settings.ca_file}: {error.strerror}") from error
        return DialSettings(
            allowed=Allowed(settings.servers, settings.link_names),
            tls=verifying_context(ca),
            proxies=Proxies.of(self._env),
            server_name=settings.server_name,
        )


def _access(settings: Settings, env: Mapping[str, str]) -> Access:
    if settings.kubeconfig is not None:
        return kubeconfig.load(settings.kubeconfig, settings.kubeconfig_context)
    return InCluster(env)
