"""A whole agent, composed from its settings: the only place where its parts are wired together."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from agent import kubeconfig
from agent.access import Access
from agent.address import Allowed
from agent.attach import Agent, Attaching, between_attempts
from agent.cleanup import Cleanup, own_namespace
from agent.clusterid import ClusterIdError, cluster_id
from agent.dial import Dialler, DialSettings
from agent.enrolment import Asking, Enrolment
from agent.health import HEALTH_POOL, Health, HealthTiming
from agent.heartbeat import Heartbeats, HeartbeatTiming
from agent.identityfile import IdentityFile
from agent.incluster import InCluster
from agent.links import LinkPoolLimits
from agent.membership import Membership
from agent.pool import PoolLimits, UpstreamPool
from agent.proxies import Proxies
from agent.relay import Relay
from agent.renewal import Renewal, RenewalTiming
from agent.report import Reporting, ReportTiming
from agent.serviceaccounts import CALLS_POOL, ServiceAccounts
from agent.settings import ConfigError, Settings
from agent.silence import PING_POOL, Silence, SilenceTiming
from agent.statesecret import StateSecret
from agent.status import AgentName, StatusReader, StatusTiming
from agent.trust import Trust
from tunnel.backoff import BackOff
from tunnel.batch import Batch
from tunnel.ports import AgentExchange, RequestBlock, RequestSink

log = structlog.get_logger("kulvert.agent")


@dataclass(frozen=True, slots=True)
class Pools:
    """Connections to the API server: users' requests, the agent's own short questions, and what the stub calls for.
    None of them waits for another's.
    """

    requests: UpstreamPool
    questions: UpstreamPool
    calls: UpstreamPool


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
        questions, calls = self._pool(batch, HEALTH_POOL), self._pool(batch, CALLS_POOL)
        try:
            uid = await self._cluster_id(questions)
            if uid:
                await self._serve(batch, Pools(pool, questions, calls), uid)
        finally:
            for one in (pool, questions, calls):
                await one.close()

    def stop(self) -> None:
        """Finish what is under way, then end `run`."""
        self._stopping.set()

    async def _serve(self, batch: Batch, pools: Pools, uid: str) -> None:
        questions = pools.questions
        kept = self._kept(questions)
        if kept is not None:
            await kept.restore(self._settings.cluster, uid)
        agent = self.agent = self._agent(batch, pools, uid)
        membership = agent.membership
        elsewhere = functools.partial(kept.look, membership) if kept is not None else None
        renewal = Renewal(membership, agent.call, random.random, RenewalTiming(), elsewhere=elsewhere)
        health = Health(questions, lambda report: agent.tell_health(renewal.told(report)), HealthTiming())
        silence = Silence(lambda: tuple(agent.sessions), lambda: self._pool(batch, PING_POOL), SilenceTiming())
        status = StatusReader(self._name(), pools.calls, lambda: health.last, StatusTiming())
        beats = Heartbeats(lambda: status.status, lambda: tuple(agent.sessions), random.random, HeartbeatTiming())
        async with asyncio.TaskGroup() as group:
            work = [
                group.create_task(agent.run(), name="agent: attach"),
                group.create_task(health.run(), name="agent: health"),
                group.create_task(silence.run(), name="agent: silence"),
                group.create_task(renewal.run(), name="agent: certificate"),
                group.create_task(status.run(), name="agent: status"),
                group.create_task(beats.run(), name="agent: heartbeats"),
            ]
            if kept is not None:
                work.append(group.create_task(kept.run(membership), name="agent: keep the certificate"))
            if self._settings.allow_pass_through:
                reporting = Reporting(pools.calls, lambda: tuple(agent.sessions), ReportTiming())
                work.append(group.create_task(reporting.run(), name="agent: report"))
            await self._stopping.wait()
            await agent.drain()
            for task in work:
                task.cancel()

    def _name(self) -> AgentName:
        return AgentName(self._settings.agent or socket.gethostname(), f"kulvert/{self._version}")

    def _kept(self, questions: UpstreamPool) -> StateSecret | None:
        name, directory = self._settings.state_secret, self._settings.state_dir
        if not name:
            return None
        if directory is None:
            raise ConfigError("stateSecret keeps what is in stateDir: set that, too")
        return StateSecret(questions, own_namespace(), name, directory)

    async def _cluster_id(self, questions: UpstreamPool) -> str:
        backoff = BackOff(random.random, first=0.5, most=30.0, soon=5.0)
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

    def _agent(self, batch: Batch, pools: Pools, uid: str) -> Agent:
        settings, pool = self._settings, pools.requests
        policy = settings.policy()

        def relay(exchange: AgentExchange, head: RequestBlock) -> RequestSink:
            made = Relay(exchange, pool, policy)
            made.start(head)
            return made

        setting = Attaching(
            cluster=settings.cluster,
            cluster_id=uid,
            agent=self._name().name,
            software=self._name().software,
            instance=secrets.token_hex(16),
            exchanges=settings.exchanges,
            links=LinkPoolLimits(most=settings.max_links),
            patience=float(settings.drain),
        )
        dialler, membership = self._membership(uid)
        asking = Asking(setting.agent, setting.software, setting.instance, settings.join_token)
        enrolment = Enrolment(asking, membership, dialler, batch)
        accounts = ServiceAccounts(pools.calls, settings.rules.made(), settings.managed_service_accounts)
        methods = {**Cleanup(pools.calls, own_namespace()).methods(), **accounts.methods()}
        return Agent(setting, enrolment, dialler, relay, batch, between_attempts(random.random), methods=methods)

    def _membership(self, uid: str) -> tuple[Dialler, Membership]:
        settings = self._settings
        file, trust = IdentityFile(settings.state_dir), self._trust()
        dial = DialSettings(
            allowed=Allowed(settings.servers, settings.link_names),
            proxies=Proxies.of(self._env),
            server_name=settings.server_name,
        )
        dialler = Dialler(dial, trust.context(None))
        membership = Membership(settings.cluster, uid, file, trust, dialler.use)
        if membership.identity is None and settings.join_token is None and not settings.state_secret:
            raise ConfigError(
                "no certificate is in stateDir, and no join token is set to ask for one: set joinTokenFile"
            )
        return dialler, membership

    def _trust(self) -> Trust:
        settings = self._settings
        try:
            return Trust(settings.ca_file.read_text() if settings.ca_file else None, settings.state_dir)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not text"
            raise ConfigError(f"cannot read caFile, {settings.ca_file}: {why}") from error


def _access(settings: Settings, env: Mapping[str, str]) -> Access:
    if settings.kubeconfig is not None:
        return kubeconfig.load(settings.kubeconfig, settings.kubeconfig_context)
    return InCluster(env)
