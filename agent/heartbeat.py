"""Tells the server how the cluster is, over each session: at once, when it changes, and often enough to be a heartbeat.

That one arrives shows the whole way: the API server answered the agent, and the agent reaches the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from agent.status import Status
from tunnel.calls import CallFailed, Params

log = structlog.get_logger("kulvert.agent")

METHOD: Final = "cluster.heartbeat"


class Session(Protocol):
    """agent.session.AgentSession."""

    async def call(self, method: str, params: Params, timeout: float = 10.0) -> Params: ...


@dataclass(frozen=True, slots=True)
class HeartbeatTiming:
    """Seconds. Heartbeats are `every` apart or, by chance, up to a fifth of it less; news waits for `least`."""

    every: float = 30.0
    least: float = 5.0
    look: float = 1.0
    answer: float = 10.0
    unknown: float = 600.0
    """A server that has no such method is asked again then: it may have been replaced by a later one."""


@dataclass(slots=True)
class _Told:
    """What a session has heard, and when it hears the next, whatever it is."""

    status: Status
    at: float
    due: float


class Heartbeats:
    """`run` is its whole life, in which it owns a task for each session that is being told."""

    def __init__(
        self,
        status: Callable[[], Status | None],
        sessions: Callable[[], Iterable[Session]],
        randomness: Callable[[], float],
        timing: HeartbeatTiming,
    ) -> None:
        self._status = status
        self._sessions = sessions
        self._randomness = randomness
        self._timing = timing
        self._told: dict[Session, _Told] = {}
        self._said = ""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self.look(group)
                await asyncio.sleep(self._timing.look)

    def look(self, group: asyncio.TaskGroup) -> None:
        """Once: tells whoever is due. A session that is slow to answer keeps none of the others waiting."""
        now, status, sessions = asyncio.get_running_loop().time(), self._status(), set(self._sessions())
        self._told = {session: told for session, told in self._told.items() if session in sessions}
        if status is None:
            return
        for session in sessions:
            if self._is_due(self._told.get(session), status, now):
                due = now + self._timing.every * (1 - self._randomness() / 5)
                self._told[session] = _Told(status, now, due)
                group.create_task(self._tell(session, status), name="agent: heartbeat")

    def _is_due(self, told: _Told | None, status: Status, now: float) -> bool:
        if told is None or now >= told.due:
            return True
        return now >= told.at + self._timing.least and status.is_news_after(told.status)

    async def _tell(self, session: Session, status: Status) -> None:
        try:
            await session.call(METHOD, {"status": status.params()}, self._timing.answer)
            self._said = ""
        except CallFailed as failed:
            self._failed(session, failed)

    def _failed(self, session: Session, failed: CallFailed) -> None:
        told = self._told.get(session)
        if failed.reason == "closed" or told is None:
            return
        if failed.reason == "unknown":  # an older server
            told.at = told.due = asyncio.get_running_loop().time() + self._timing.unknown
            return
        if str(failed) != self._said:  # once, and not twice a minute
            log.warning("the server did not take this cluster's status", error=str(failed))
        self._said = str(failed)
