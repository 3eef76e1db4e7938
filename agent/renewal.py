"""Renewal: at two thirds of its life the agent's certificate is replaced, over the session that is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import structlog

from agent.enrolment import request
from agent.health import HealthReport
from agent.identityfile import AgentIdentity, new_key
from agent.membership import Membership
from tunnel.backoff import BackOff
from tunnel.calls import Params
from tunnel.enrolment import Issued
from tunnel.errors import TunnelError

log = structlog.get_logger("kulvert.agent")

METHOD: Final = "agent.renew"
FAILURES: Final = 3
"""So many in a row are told with the agent's health."""
Call: TypeAlias = Callable[[str, Params, float], Coroutine[Any, Any, Params]]


@dataclass(frozen=True, slots=True)
class RenewalTiming:
    """Seconds, and parts of a certificate's life. The wall clock is looked at every `look`: machines sleep."""

    at: float = 2 / 3
    spread: float = 0.1
    """What is drawn at random, around `at`: agents that were enrolled together do not come back as one."""
    look: float = 30.0
    timeout: float = 30.0
    again: float = 5.0
    """Before the second try; ..."""
    soon: float = 5.0
    """... at most, for the first minute of failures, ..."""
    most: float = 300.0
    """... and at all."""


class Renewal:
    """`call` asks the stub over a session (`tunnel.calls`). The new certificate proves the next session; the present
    one stays as it is.
    """

    def __init__(
        self,
        membership: Membership,
        call: Call,
        uniform: Callable[[], float],
        timing: RenewalTiming = RenewalTiming(),
        wall: Callable[[], float] = time.time,
        elsewhere: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`elsewhere` looks whether another replica has a newer certificate already, which the membership then has."""
        self._elsewhere = elsewhere
        self._membership = membership
        self._call = call
        self._timing = timing
        self._uniform = uniform
        self._wall = wall
        self._backoff = BackOff(uniform, first=timing.again, most=timing.most, soon=timing.soon)
        self._seen: AgentIdentity | None = None
        self._due = 0.0
        self._failures = 0
        self._trouble = ""

    def told(self, report: HealthReport) -> HealthReport:
        """The report, and what is wrong with the certificate."""
        if self._failures < FAILURES:
            return report
        message = f"{report.message}; {self._trouble}" if report.message else self._trouble
        return HealthReport(report.ready, message, report.latency_ms)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._until_due()
            if await self._is_done_elsewhere():
                continue
            try:
                await self._renew()
            except (TunnelError, OSError) as error:
                self._failed(error)
                await asyncio.sleep(self._backoff.next())
            else:
                self._failures = 0
                self._backoff.reset()

    async def _is_done_elsewhere(self) -> bool:
        if self._elsewhere is None:
            return False
        before = self._membership.identity
        await self._elsewhere()
        return self._membership.identity is not before

    async def _until_due(self) -> None:
        """Where there is no certificate, enrolment brings one."""
        while (left := self._left(self._membership.identity)) > 0:  # noqa: ASYNC110 -- the wall clock has no event
            await asyncio.sleep(min(left, self._timing.look))

    def _left(self, identity: AgentIdentity | None) -> float:
        """Seconds until it is due. What is random is drawn once for each certificate: what has failed stays due."""
        if identity is None:
            return self._timing.look
        if identity is not self._seen:
            part = self._timing.at + self._timing.spread * (self._uniform() - 0.5)
            self._seen, self._due = identity, identity.began + part * (identity.expires - identity.began)
        return self._due - self._wall()

    async def _renew(self) -> None:
        membership, key = self._membership, new_key()
        csr = request(key, membership.cluster, membership.cluster_id)
        result = await self._call(METHOD, {"csr": csr}, self._timing.timeout)
        identity: AgentIdentity = await membership.take(key, Issued.of({"kind": METHOD} | result))
        log.info("certificate renewed", hours=round((identity.expires - self._wall()) / 3600, 1))

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        identity = self._membership.identity
        left = f"expires in {round((identity.expires - self._wall()) / 60)} min" if identity else "has expired"
        self._trouble = f"the agent's certificate {left}, and cannot be renewed: {error}"
        log.warning("certificate not renewed", failures=self._failures, error=str(error))
