"""The agent's loop: dial, prove, attach, serve, and again with back-off (docs/protocol.md, 3 and 9)."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from agent.arrival import Arrival
from agent.course import MOVES
from agent.dial import Dialler
from agent.enrolment import Enrolment
from agent.knock import Knocking
from agent.links import LinkPoolLimits, OwnLinks
from agent.session import AgentSession, HealthReport
from tunnel.agentmux import Handler
from tunnel.backoff import BackOff
from tunnel.batch import Batch
from tunnel.calls import CallFailed, Method, Params
from tunnel.limits import LinkLimits, Timing

log = structlog.get_logger("kulvert.agent")
BRIEF = 2.0
"""Seconds: servers that send an agent to and fro do so faster, replicas that are replaced one by one more slowly."""


def between_attempts(uniform: Callable[[], float]) -> BackOff:
    """For the first minute 5 s at most: a stub that another takes over for is back within seconds. It grows so slowly
    that whoever was away for some seconds finds its agents again within half of that.
    """
    return BackOff(uniform, first=0.5, most=30.0, factor=1.5, soon=5.0, patience=60.0)


@dataclass(frozen=True, slots=True)
class Attaching:
    """What an agent says of itself. `instance` is another one for each start."""

    cluster: str
    cluster_id: str
    agent: str
    software: str
    instance: str
    exchanges: int = 10_000
    links: LinkPoolLimits = field(default_factory=LinkPoolLimits)
    limits: LinkLimits = field(default_factory=LinkLimits)
    timing: Timing = field(default_factory=Timing)
    patience: float = 30.0
    stable: float = 10.0
    """Seconds that a session has to last for the back-off to begin anew."""


class Agent:
    """Keeps one session attached until it is cancelled; `run` is its whole life. Others, that were handed over or have
    lost their stub, end beside it.
    """

    def __init__(
        self,
        setting: Attaching,
        enrolment: Enrolment,
        dialler: Dialler,
        handler: Handler,
        batch: Batch,
        backoff: BackOff,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
        methods: Mapping[str, Method] | None = None,
    ) -> None:
        self._setting = setting
        self.membership = enrolment.membership
        place = Knocking(dialler, batch, setting.limits, setting.timing)
        self._arrival = Arrival(setting, enrolment, place, handler, randomness, methods or {})
        self._backoff = backoff
        self._report: HealthReport | None = None
        self._sent = 0
        self._draining = False
        self._dialled: deque[float] = deque()
        self.sessions: set[AgentSession] = set()

    @property
    def attached(self) -> bool:
        """Whether a session is up that takes exchanges."""
        return any(not session.draining for session in self.sessions)

    def tell_health(self, report: HealthReport) -> None:
        """Report the API server's health to every session, and to those to come."""
        self._report = report
        for session in self.sessions:
            session.tell_health(report)

    async def call(self, method: str, params: Params, timeout: float) -> Params:
        """Ask the stub, over a session, something rare. Raises `tunnel.calls.CallFailed`."""
        session = next((session for session in self.sessions if not session.draining), None)
        if session is None:
            raise CallFailed("closed", "the agent is not attached")
        return await session.call(method, params, timeout)

    async def run(self) -> None:
        """Attach, and attach again, until cancelled or drained."""
        async with asyncio.TaskGroup() as group:
            while not self._draining:
                session = await self._arrival.attach(self.sessions)
                if session is None:
                    await asyncio.sleep(self._pause())
                    continue
                if self._draining:
                    session.close("the agent is stopping")
                self._succeed()
                self.sessions.add(session)
                group.create_task(self._serve(session), name=f"session {session.identity.session[:8]}")
                await self._until_replaced(session)

    def _succeed(self) -> None:
        for session in self.sessions:
            session.succeeded = session.replaced

    def _pause(self) -> float:
        """Those that were told to come back at the same time do not."""
        pause, told = self._backoff.next(), self._arrival.retry_after
        return max(pause, told + self._backoff.scatter()) if told else pause

    async def _until_replaced(self, session: AgentSession) -> None:
        """Until another session is wanted, and it is time to ask for one."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await session.left()
        lasted = loop.time() - began
        held = lasted >= self._setting.stable
        if held:
            self._backoff.reset()
        if self._draining:
            return
        if session.replaced:
            self._arrival.leave(session.sent_to)
            self._sent = 0 if lasted >= BRIEF else self._sent + 1
            if self._sent > MOVES:  # two servers that each hand over to the other
                await asyncio.sleep(self._backoff.next())
        elif held:  # its server was lost, and all other agents' with it
            self._sent = 0
            await asyncio.sleep(self._backoff.scatter())
        else:
            await asyncio.sleep(self._backoff.next())

    async def _serve(self, session: AgentSession) -> None:
        links = OwnLinks(session, self._arrival.attach_own, self._setting.links, dialled=self._dialled)
        session.mux.on_links_wanted = links.wanted
        if self._report is not None:
            session.tell_health(self._report)
        work: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                work.append(group.create_task(session.sweep(), name="session: sweep"))
                if self._setting.links.most:
                    work.append(group.create_task(links.run(), name="session: own links"))
                reason = await session.ended()
                log.warning("detached", reason=reason)
                for task in work:
                    task.cancel()
        finally:
            self.sessions.discard(session)
            session.close("the agent is stopping")
            await session.gone()

    async def drain(self) -> None:
        """Attach no more, and finish what is under way; call it before `run` is cancelled."""
        self._draining = True
        async with asyncio.TaskGroup() as group:
            for session in self.sessions:
                group.create_task(session.drain(self._setting.patience), name="drain")
