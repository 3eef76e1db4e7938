"""The agent's keep-alive connections to its API server: who gets which, how many there are, and when they
retire.

The most recently used one is taken first, so that what a burst has opened ages and goes. An idle one
retires before kube-apiserver would close it (90 s), and every one at a jittered age, so that highly
available API servers share the load again after one was away. One sweep serves all deadlines; a connection
has no timer of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent.access import Access
from agent.failures import stopping, unreachable
from agent.poollimits import PoolLimits, PoolState
from agent.upstream import UpstreamConnection, UpstreamUser
from tunnel.batch import Batch
from tunnel.errors import ExchangeReset, Hop, Reason, TunnelError

__all__ = ["PoolLimits", "PoolState", "UpstreamPool"]


@dataclass(slots=True)
class _Wait:
    deadline: float
    fresh: bool


class UpstreamPool:
    """Hands out connections of one API server. `uniform` gives random numbers of [0, 1), for the ages."""

    def __init__(
        self,
        access: Access,
        batch: Batch,
        limits: PoolLimits,
        loop: asyncio.AbstractEventLoop,
        uniform: Callable[[], float],
    ) -> None:
        self.access = access
        self.batch = batch
        self.limits = limits
        self._loop = loop
        self._clock = loop.time
        self._uniform = uniform
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._closing: dict[UpstreamConnection, float] = {}
        self._waiting: dict[UpstreamUser, _Wait] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._strays = 0
        self._closed = False
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def state(self) -> PoolState:
        """Numbers of this moment."""
        return PoolState(len(self._open), len(self._idle), len(self._dials), len(self._waiting), self._strays)

    def acquire(self, user: UpstreamUser, fresh: bool = False) -> UpstreamConnection | None:
        """A connection, if one is idle; otherwise `user.on_connected` or `on_unavailable` comes later.

        `fresh` asks for one that carried nothing before. Raises ExchangeReset (OVERLOADED) when too many
        wait.
        """
        now = self._clock()
        while self._idle and not fresh:
            connection = self._idle.pop()
            if now - connection.idle_since < self.limits.idle_timeout and now < connection.expires:
                connection.user = user
                return connection
            connection.close()
        self._wait(user, _Wait(now + self.limits.dial_timeout, fresh))
        return None

    def now(self) -> float:
        """The time that everything here is measured by."""
        return self._clock()

    def forget(self, user: UpstreamUser) -> None:
        """Whoever waited does not any more; the dial goes on, and serves another."""
        self._waiting.pop(user, None)

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose exchange ended exactly: what was asked is sent, what was answered is
        read.
        """
        connection.user = None
        if connection.closing:
            return
        connection.resume()
        connection.reused = True
        now = self._clock()
        if self._closed or now >= connection.expires:
            connection.close()
        else:
            self._give(connection, now)

    async def close(self) -> None:
        """Close everything, waiting users included; connections in use end with their exchanges, or are
        aborted.
        """
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for user in list(self._waiting):
            self._refuse(user, stopping())
        for task in list(self._dials):
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for connection in list(self._open):
            connection.abort()

    def on_stray(self, connection: UpstreamConnection) -> None:
        """An idle connection spoke or ended."""
        self._strays += 1
        self._drop_idle(connection)

    def on_closing(self, connection: UpstreamConnection) -> None:
        """It gets `closing` seconds."""
        self._closing[connection] = self._clock() + self.limits.closing
        self._sweep_later()

    def on_closed(self, connection: UpstreamConnection) -> None:
        """Its place is free."""
        self._closing.pop(connection, None)
        self._open.discard(connection)
        self._drop_idle(connection)
        self._dial_more()

    def _wait(self, user: UpstreamUser, wait: _Wait) -> None:
        if self._closed:
            raise stopping()
        if len(self._waiting) >= self.limits.waiting:
            raise ExchangeReset(
                Hop.AGENT, Reason.OVERLOADED, "too many requests wait for a connection to the API server"
            )
        self._waiting[user] = wait
        self._dial_more()
        self._sweep_later()

    def _give(self, connection: UpstreamConnection, now: float) -> None:
        """To whoever has waited longest, or to rest."""
        user = self._next(connection.reused) if self._waiting else None
        if user is not None:
            del self._waiting[user]
            connection.user = user
            user.on_connected(connection)
        elif len(self._idle) >= self.limits.idle:
            connection.close()
        else:
            connection.idle_since = now
            connection.reused = True
            self._idle.append(connection)
            self._sweep_later()

    def _next(self, reused: bool) -> UpstreamUser | None:
        return next((user for user, wait in self._waiting.items() if not (wait.fresh and reused)), None)

    def _drop_idle(self, connection: UpstreamConnection) -> None:
        if connection.user is None and connection in self._idle:
            self._idle.remove(connection)

    def _dial_more(self) -> None:
        """One dial for each who waits, within the bounds."""
        room = min(self.limits.dials, self.limits.connections - len(self._open)) - len(self._dials)
        for _ in range(min(room, len(self._waiting) - len(self._dials))):
            task = self._loop.create_task(self._dial())
            self._dials.add(task)
            task.add_done_callback(self._dialled)

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dials.discard(task)
        if not self._closed:
            self._dial_more()

    async def _dial(self) -> None:
        try:
            async with asyncio.timeout(self.limits.dial_timeout):
                connection = await self._connect()
        except (OSError, ValueError, TunnelError) as error:
            with self.batch:
                self._dial_failed(unreachable(error))
            return
        with self.batch:
            self._arrived(connection)

    async def _connect(self) -> UpstreamConnection:
        access, limits = self.access, self.limits
        expires = self._clock() + limits.max_age * (0.8 + 0.2 * self._uniform())
        _, connection = await self._loop.create_connection(
            lambda: UpstreamConnection(self.batch, self, expires),
            access.server.host,
            access.server.port,
            ssl=access.context(),
            server_hostname=access.server.name,
            ssl_handshake_timeout=limits.dial_timeout,
            ssl_shutdown_timeout=limits.closing,
        )
        return connection

    def _arrived(self, connection: UpstreamConnection) -> None:
        if connection.closing:
            self._dial_failed(
                ExchangeReset(Hop.APISERVER, Reason.UNREACHABLE, "the API server closed a new connection")
            )
            return
        self._open.add(connection)
        self._give(connection, self._clock())

    def _dial_failed(self, error: ExchangeReset) -> None:
        """One dial fails one who waits: the longest waiting, whose turn it was."""
        user = next(iter(self._waiting), None)
        if user is not None:
            self._refuse(user, error)

    def _refuse(self, user: UpstreamUser, error: ExchangeReset) -> None:
        del self._waiting[user]
        user.on_unavailable(error)

    def _sweep_later(self) -> None:
        if self._sweeper is None and not self._closed:
            self._sweeper = self._loop.call_later(self.limits.sweep, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._clock()
        with self.batch:
            self._sweep_waiting(now)
            self._sweep_idle(now)
            for connection in [c for c, deadline in self._closing.items() if deadline <= now]:
                connection.abort()
        if self._idle or self._waiting or self._closing:
            self._sweep_later()

    def _sweep_waiting(self, now: float) -> None:
        error = ExchangeReset(Hop.APISERVER, Reason.TIMEOUT, "no connection to the API server in time")
        for user in [user for user, wait in self._waiting.items() if wait.deadline <= now]:
            self._refuse(user, error)

    def _sweep_idle(self, now: float) -> None:
        """The oldest come first: the list is used from its end."""
        since = now - self.limits.idle_timeout
        for connection in [c for c in self._idle if c.idle_since <= since or c.expires <= now]:
            self._idle.remove(connection)
            connection.close()
