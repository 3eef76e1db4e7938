"""Tells an API server that is slow from one that answers nobody: a frozen one keeps its connections, and says nothing.

An answer may take its time (a webhook, a large list), so time alone fails no request. Once one has waited for a while,
the API server is asked for something that costs it nothing; where that is not answered either, what waits fails, with
a word for its user, instead of hanging for as long as the user does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from agent.pool import UpstreamPool
from agent.question import ask
from agent.session import AgentSession
from tunnel.errors import ExchangeReset, Hop, Reason

log = structlog.get_logger("kulvert.agent")

PING = b"/livez/ping"
"""Needs neither etcd nor any right: a 403 is a sign of life, too."""
LATE = 0.2
"""A question that took so much longer than its timeout says that this process was held up, and nothing else."""


@dataclass(frozen=True, slots=True)
class SilenceTiming:
    """Seconds. In all, a request to a frozen API server fails within `patience + look + answer`."""

    patience: float = 0.75
    answer: float = 0.75
    look: float = 0.1


class Silence:
    """Looks on for as long as it runs. `questions` is a pool of its own: users' requests do not delay the question."""

    def __init__(
        self, sessions: Callable[[], Iterable[AgentSession]], questions: UpstreamPool, timing: SilenceTiming
    ) -> None:
        self._sessions = sessions
        self._questions = questions
        self._timing = timing

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._timing.look)
            if self._waiting() and await self._silent():
                self._give_up()

    def _waiting(self) -> bool:
        """Every session is looked at, since each look leaves a mark for the next."""
        patience = self._timing.patience
        return sum(len(session.unanswered(patience)) for session in self._sessions()) > 0

    async def _silent(self) -> bool:
        began = self._questions.now()
        try:
            await ask(self._questions, PING, self._timing.answer)
        except ExchangeReset as error:
            in_time = self._questions.now() - began < self._timing.answer + LATE
            return error.reason is Reason.TIMEOUT and in_time
        return False

    def _give_up(self) -> None:
        error = ExchangeReset(Hop.APISERVER, Reason.TIMEOUT, "the API server answers nothing, not even a ping")
        given_up = 0
        with self._questions.batch:
            for session in self._sessions():
                for exchange in session.unanswered(self._timing.patience):
                    exchange.fail(error)
                    given_up += 1
        log.warning("the API server answers nothing", requests=given_up)
