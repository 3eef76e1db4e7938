"""Tells an API server that is slow from one that answers nobody: a frozen one keeps its connections, and says nothing.

An answer may take its time (a webhook, a large list), so time alone fails no request. Once one has waited for a while,
the API server is asked for something that costs it nothing, and asked again by another connection; where neither is
answered, what waits fails, with a word for its user, instead of hanging for as long as the user does.

Each sign of life is good for all who were waiting then. For those who wait on, it is asked again, less and less often;
but for what may rightly stay without an answer for hours (`logs -f` of a pod that says nothing, a watch, an exec), one
sign is enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from agent.pool import PoolLimits, UpstreamPool
from agent.question import ask
from agent.relay import Relay
from agent.session import AgentSession
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.exchange import TunnelExchange

log = structlog.get_logger("kulvert.agent")

PING = b"/livez/ping"
"""Needs neither etcd nor any right: a 403 is a sign of life, too."""
PING_POOL = PoolLimits(connections=2, idle=1, dials=2, waiting=2, dial_timeout=2.0)
"""A pool of its own: neither users' requests nor the question for health delay a ping."""
LATE = 0.2
"""A wait that took so much longer than it should says that this process was held up, and nothing else."""


@dataclass(frozen=True, slots=True)
class SilenceTiming:
    """Seconds. In all, a request to a frozen API server fails within `patience + 2 * look + answer`."""

    patience: float = 0.2
    answer: float = 1.5
    """For so long a ping may go unanswered."""
    second: float = 0.75
    """When the other connection is tried, counted from the first ping."""
    look: float = 0.05
    most: float = 15.0
    """Between pings for those who wait on while the API server lives: it begins with `patience`, and doubles."""


class Silence:
    """Looks on for as long as it runs. `pools` makes pools for pings alone."""

    def __init__(
        self,
        sessions: Callable[[], Iterable[AgentSession]],
        pools: Callable[[], UpstreamPool],
        timing: SilenceTiming,
    ) -> None:
        self._sessions = sessions
        self._pools = pools
        self._timing = timing
        self._clock = asyncio.get_running_loop().time
        self._pause = timing.patience
        self._again = 0.0
        self._rest = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        kept = self._pools()
        try:
            while True:
                await asyncio.sleep(self._timing.look)
                self._look()
                if not self._due():
                    continue
                asked = [(session, session.mux.highest) for session in self._sessions()]
                if await self._silent(kept):
                    self._give_up()
                else:
                    self._lives(asked)
        finally:
            await kept.close()

    # --- who waits

    def _look(self) -> None:
        for session in self._sessions():
            session.look(self._timing.patience)

    def _due(self) -> bool:
        """Somebody waits for whom there was no sign of life yet; or others do, and it is time to ask again."""
        if self._clock() < self._rest:
            return False
        if any(_unanswered(session, session.alive) for session in self._sessions()):
            return True
        if self._clock() < self._again:
            return False
        if any(map(_unanswered, self._sessions())):
            return True
        self._pause = self._timing.patience
        return False

    def _lives(self, asked: list[tuple[AgentSession, int]]) -> None:
        """Whoever came before the ping knows that the API server was alive after that."""
        for session, highest in asked:
            session.alive = highest
        now = self._clock()
        self._rest = now + self._timing.patience
        if now >= self._again:
            self._again = now + self._pause
            self._pause = min(2 * self._pause, self._timing.most)

    # --- asking

    async def _silent(self, kept: UpstreamPool) -> bool:
        """Whether two pings stay unanswered, each by a connection of its own."""
        pings = {asyncio.create_task(_ping(kept), name="agent: ping")}
        fresh: UpstreamPool | None = None
        try:
            waited = 0.0
            while waited < self._timing.answer:
                if fresh is None and waited >= self._timing.second:
                    fresh = self._pools()
                    pings.add(asyncio.create_task(_ping(fresh), name="agent: second ping"))
                waited += await self._wait(pings)
                if any(ping.done() for ping in pings):
                    return False
            return True
        finally:
            for ping in pings:
                ping.cancel()
            await asyncio.gather(*pings, return_exceptions=True)
            if fresh is not None:
                await fresh.close()

    async def _wait(self, pings: set[asyncio.Task[None]]) -> float:
        """One look's time, or until a ping is answered. What this process was held up for does not count: an answer may
        lie there unread.
        """
        began, look = self._clock(), self._timing.look
        await asyncio.wait(pings, timeout=look, return_when=asyncio.FIRST_COMPLETED)
        self._look()
        took = self._clock() - began
        return took if took < look + LATE else 0.0

    def _give_up(self) -> None:
        error = ExchangeReset(Hop.APISERVER, Reason.TIMEOUT, "the API server answers nothing, not even a ping")
        given_up = 0
        for session in self._sessions():
            for exchange in _unanswered(session):
                exchange.fail(error)
                given_up += 1
        log.warning("the API server answers nothing", requests=given_up)


def _unanswered(session: AgentSession, beyond: int = 0) -> list[TunnelExchange]:
    """What has waited too long, of the exchanges that came after `beyond`."""
    return [one for one in session.waiting(beyond) if _owed(one, session.alive)]


def _owed(exchange: TunnelExchange, alive: int) -> bool:
    """It has no answer, and should have one: what has no end may be silent, once the API server was seen alive."""
    relay = exchange.sink
    return isinstance(relay, Relay) and relay.unanswered and (exchange.id > alive or not relay.endless)


async def _ping(pool: UpstreamPool) -> None:
    """Returns at a sign of life. A connection that is refused is one: it lets nobody wait. Silence is asked again."""
    while True:
        try:
            await ask(pool, PING, PING_POOL.dial_timeout)
            return
        except ExchangeReset as error:
            if error.reason is not Reason.TIMEOUT:
                return
