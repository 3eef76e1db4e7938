"""Tells the server by which keys, and for which audiences, this cluster's API server knows its service accounts.

The server pins them for this cluster, so as to recognise this cluster's own tokens. What it cannot take, or cannot be
read here, is no reason to serve nobody: the agent says so in its log, and tries again.

Source: kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery;
every service account may read both documents, by the role system:service-account-issuer-discovery.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from agent.pool import UpstreamPool
from agent.question import Reply, ask
from tunnel.calls import CallFailed, Params
from tunnel.errors import ExchangeReset

log = structlog.get_logger("kulvert.agent")

DISCOVERY: Final = b"/.well-known/openid-configuration"
JWKS: Final = b"/openid/v1/jwks"
VERSION: Final = b"/version"
METHOD: Final = "cluster.report"
MAX_JWKS: Final = 32 * 1024
_ISSUER_LIMIT: Final = 1_024


class NoReport(Exception):
    """The API server does not say it; the text says what to do."""


class Reported(Protocol):
    """agent.session.AgentSession."""

    async def call(self, method: str, params: Params, timeout: float = 10.0) -> Params: ...


@dataclass(frozen=True, slots=True)
class ReportTiming:
    """Seconds between looks at what sessions there are, readings of the keys, and attempts after a failure."""

    look: float = 1.0
    again: float = 3_600.0
    retry: float = 60.0
    answer: float = 10.0


class Reporting:
    """Reports to each session once, and again when what there is to report has changed. `run` is its whole life."""

    def __init__(
        self, questions: UpstreamPool, sessions: Callable[[], Iterable[Reported]], timing: ReportTiming
    ) -> None:
        self._questions = questions
        self._sessions = sessions
        self._timing = timing
        self._report: Params | None = None
        self._read_at = float("-inf")
        self._told: dict[Reported, Params] = {}
        self._not_before = float("-inf")
        self._said = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._timing.look)

    async def look(self) -> None:
        """Once: read what is old, and tell whoever has not heard of it."""
        now = asyncio.get_running_loop().time()
        sessions = list(self._sessions())
        self._told = {session: told for session, told in self._told.items() if session in sessions}
        if now < self._not_before or not sessions:
            return
        fresh = [session for session in sessions if session not in self._told]
        if self._report is None or fresh or now >= self._read_at + self._timing.again:
            await self._read(now)
        for session in sessions:
            if self._report is not None and self._told.get(session) != self._report:
                await self._tell(session, self._report)

    async def _read(self, now: float) -> None:
        try:
            self._report = await read_report(self._questions, self._timing.answer)
            self._read_at = now
        except (NoReport, ExchangeReset) as error:
            self._failed("the keys of this cluster's service accounts cannot be read", str(error))

    async def _tell(self, session: Reported, report: Params) -> None:
        try:
            await session.call(METHOD, report, self._timing.answer)
        except CallFailed as failed:
            if failed.reason not in ("unknown", "closed"):  # an older server; or the session has ended
                self._failed("the server did not take the keys of this cluster's service accounts", str(failed))
                return
        self._told[session] = report

    def _failed(self, event: str, error: str) -> None:
        self._not_before = asyncio.get_running_loop().time() + self._timing.retry
        if error != self._said:  # once, and not once a minute
            log.warning(event, error=error)
        self._said = error


async def read_report(questions: UpstreamPool, timeout: float = 10.0) -> Params:
    """Issuer, keys, version and audiences. Raises NoReport, or ExchangeReset where there is no answer."""
    discovery = _object(await ask(questions, DISCOVERY, timeout), DISCOVERY)
    reply = await ask(questions, JWKS, timeout)
    _object(reply, JWKS)
    if len(reply.body) > MAX_JWKS:
        raise NoReport(f"the API server's key set has more than {MAX_JWKS} bytes")
    issuer = discovery.get("issuer")
    if not isinstance(issuer, str) or not 0 < len(issuer) <= _ISSUER_LIMIT:
        raise NoReport("the API server names no issuer of its tokens")
    version = await ask(questions, VERSION, timeout)
    authorization = questions.access.authorization(questions.now())
    return {
        "issuer": issuer,
        "jwks": reply.body.decode("utf-8", "replace"),
        "version": _version(version),
        "audiences": audiences(authorization, issuer),
    }


def audiences(authorization: bytes | None, issuer: str) -> list[str]:
    """What the API server wants its tokens to be for. The agent's own token says it; by default it is the issuer."""
    claims = _claims(authorization or b"")
    said = claims.get("aud") if claims.get("iss") == issuer else None
    found = [said] if isinstance(said, str) else said
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one for one in found):
        return [issuer]
    return found[:16]


def _claims(authorization: bytes) -> dict[str, Any]:
    parts = authorization.removeprefix(b"Bearer ").split(b".")
    if len(parts) != 3:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _object(reply: Reply, path: bytes) -> dict[str, Any]:
    where = path.decode()
    if reply.status in (401, 403):
        raise NoReport(
            f"the agent may not read {where}: bind it to the ClusterRole system:service-account-issuer-discovery"
        )
    if reply.status != 200:
        raise NoReport(f"the API server answers {reply.status} for {where}")
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NoReport(f"the API server's {where} is no JSON object")
    return found


def _version(reply: Reply) -> str:
    try:
        found = json.loads(reply.body).get("gitVersion")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return found[:64] if isinstance(found, str) and found.isprintable() else ""
