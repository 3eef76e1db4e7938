"""Keeps the agent's certificate in a Secret of its namespace, for all replicas of an agent: a pod that takes another's
place is enrolled already, long after its join token has expired.

The Secret is made by whoever installs the agent, and a role lets the agent get and update this one alone. stateDir is
what one pod has of it. Whoever changes something writes it, by the resourceVersion that it has read; who loses such a
race uses what the other has written. Where the Secret cannot be used the agent goes on with what it has, and tries
again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from agent.identityfile import IDENTITY, AgentIdentity, identity_in
from agent.membership import Membership
from agent.pool import UpstreamPool
from agent.privatefile import MAX_FILE, own_directory, read_private, write_private
from agent.question import Reply, ask
from agent.settings import ConfigError
from agent.trust import TRUST
from tunnel.errors import ExchangeReset

log = structlog.get_logger("kulvert.agent")

FILES: Final = (IDENTITY, TRUST)
TRIES: Final = 4
"""Races that may be lost in a row."""
SLACK: Final = 0.1
"""Certificates whose ends differ by less than this part of a life are as good as each other."""
_RID: Final = "empty it (kubectl patch secret … -p '{\"data\":null}'), and the agent is enrolled anew"


@dataclass(frozen=True, slots=True)
class StateTiming:
    """Seconds: between two looks at what this agent has; after which the Secret is read although nothing has changed
    here; after which it is tried again, or read by an agent that has no certificate; for one answer.
    """

    look: float = 2.0
    see: float = 60.0
    retry: float = 5.0
    timeout: float = 10.0


class StateSecret:
    """`restore` before the identity is read; `run` afterwards, for as long as the agent lives."""

    def __init__(
        self,
        questions: UpstreamPool,
        namespace: str,
        name: str,
        directory: Path,
        timing: StateTiming = StateTiming(),
    ) -> None:
        self._questions = questions
        self._where = f"Secret {namespace}/{name}"
        self._target = f"/api/v1/namespaces/{namespace}/secrets/{name}".encode()
        self._directory = directory
        self._timing = timing
        self._seen_der = b""
        self._told: bytes | None = None
        """The authorities that this agent had when it last agreed with the Secret."""
        self._due = 0.0
        self._said = ""
        self._one = asyncio.Lock()

    async def restore(self, cluster: str, cluster_id: str) -> None:
        """What the Secret holds, into a directory that holds no identity yet. Raises ConfigError: what it holds is
        damaged or another cluster's (it is never used then, and never overwritten), or see own_directory; OSError.
        """
        own_directory(self._directory)
        found = await self._read()
        kept = _content(found) if found is not None else {}
        identity = self._identity(kept, cluster, cluster_id)
        if identity is None or read_private(self._directory / IDENTITY) is not None:
            return
        for name, data in kept.items():
            write_private(self._directory / name, data)
        self._agreed(identity, kept.get(TRUST))
        log.info("the agent's certificate was restored from its Secret")

    async def run(self, membership: Membership) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if self._changed(membership) or loop.time() >= self._due:
                kept = await self.look(membership)
                waits = self._timing.see if _usable(membership) is not None else self._timing.retry
                self._due = loop.time() + waits
                if not kept:
                    await asyncio.sleep(self._timing.retry)
            await asyncio.sleep(self._timing.look)

    async def look(self, membership: Membership) -> bool:
        """Make the Secret and this agent agree; whether they do. Never raises."""
        async with self._one:
            try:
                for _ in range(TRIES):
                    agreed = await self._agree(membership)
                    if agreed is not None:
                        return agreed
                self._failed("it is changed by others all the time")
            except ConfigError as error:
                self._failed(str(error))
            except OSError as error:
                self._failed(f"stateDir: {error.strerror}")
            return False

    async def _agree(self, membership: Membership) -> bool | None:
        """None: another one was faster, so try again. Raises ConfigError, OSError."""
        found = await self._read()
        if found is None:
            return False
        theirs = _content(found)
        other = self._identity(theirs, membership.cluster, membership.cluster_id)
        if other is not None and self._is_for_us(other, membership):
            await membership.adopt(other)
            log.info("another replica's certificate is used, from the Secret")
        mine, trust = _usable(membership), read_private(self._directory / TRUST)
        news = {}
        if mine is not None and (other is None or other.der != mine.der):
            news[IDENTITY] = mine.pem()
        if trust is not None and (TRUST not in theirs or trust not in (theirs[TRUST], self._told)):
            news[TRUST] = trust  # it was this agent that heard of them
        written = await self._write(found, news) if news else True
        return self._agreed(mine or other, trust) if written else written

    def _is_for_us(self, other: AgentIdentity, membership: Membership) -> bool:
        """One that this agent has not had before, and that is as good as its own."""
        if other.der == self._seen_der or not membership.holds(other):
            return False
        mine = _usable(membership)
        if mine is None:
            return True
        return other.der != mine.der and other.expires > mine.expires - SLACK * (mine.expires - mine.began)

    def _changed(self, membership: Membership) -> bool:
        """Whether this agent has something that it has not yet seen in the Secret."""
        mine = _usable(membership)
        try:
            trust = read_private(self._directory / TRUST)
        except ConfigError:
            return False
        return (mine is not None and mine.der != self._seen_der) or trust not in (None, self._told)

    def _identity(self, kept: dict[str, bytes], cluster: str, cluster_id: str) -> AgentIdentity | None:
        if IDENTITY not in kept:
            return None
        return identity_in(self._where, kept[IDENTITY], cluster, cluster_id, _RID)

    # --- the Secret

    async def _read(self) -> dict[str, Any] | None:
        """The Secret, or None where it cannot be had. What an answer says is not repeated: a key is in it."""
        reply = await self._ask(b"GET")
        if reply is None or reply.status != 200:
            self._unanswered(reply)
            return None
        try:
            found = json.loads(reply.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self._failed("the API server's answer is no object")
            return None
        return found

    async def _write(self, found: dict[str, Any], news: dict[str, bytes]) -> bool | None:
        """None: it has changed since it was read."""
        encoded = {name: base64.b64encode(data).decode() for name, data in news.items()}
        found["data"] = (found.get("data") or {}) | encoded
        reply = await self._ask(b"PUT", json.dumps(found).encode())
        if reply is not None and reply.status == 409:
            return None
        if reply is None or reply.status != 200:
            self._unanswered(reply)
            return False
        return True

    def _agreed(self, identity: AgentIdentity | None, trust: bytes | None) -> bool:
        self._seen_der = identity.der if identity is not None else b""
        self._told, self._said = trust, ""
        return True

    async def _ask(self, method: bytes, body: bytes = b"") -> Reply | None:
        try:
            return await ask(self._questions, self._target, self._timing.timeout, method, body)
        except ExchangeReset as error:
            self._failed(f"the API server: {error.message}")
            return None

    def _unanswered(self, reply: Reply | None) -> None:
        if reply is None:
            return
        why = {
            403: "a role must let the agent get and update it (charts/agent-state-rbac.yaml)",
            404: "it is not there: apply charts/agent-state-rbac.yaml, or the manifest of `kulvert cluster join`",
        }
        self._failed(f"the API server answered {reply.status}: {why.get(reply.status, 'it is asked again')}")

    def _failed(self, why: str) -> None:
        if why != self._said:  # once, and not once a minute
            log.warning("the agent's certificate cannot be kept in its Secret", secret=self._where, error=why)
        self._said = why


def _usable(membership: Membership) -> AgentIdentity | None:
    return None if membership.doubted else membership.identity


def _content(found: dict[str, Any]) -> dict[str, bytes]:
    """Its files. What is no base64 the API server would not have taken."""
    data = found.get("data")
    read: dict[str, bytes] = {}
    for name in FILES:
        text = data.get(name) if isinstance(data, dict) else None
        try:
            decoded = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        except binascii.Error:
            continue
        if 0 < len(decoded) <= MAX_FILE:
            read[name] = decoded
    return read
