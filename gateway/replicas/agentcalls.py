"""Calls to agents that are attached to other replicas: whoever does what is done once for all asks the one that has
the cluster, which asks its agent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

from gateway.membership.others import Agent
from gateway.replicas.exchange import NotAsked
from stub.ownership import Ownership
from tunnel.calls import CallFailed, Params

CALL: Final = "call"
MOST_SECONDS: Final = 300.0
PATIENCE: Final = 10.0
"""Seconds for somebody to have the cluster, and to be reached."""
PAUSE: Final = 0.25
MARGIN: Final = 2.0
"""Seconds by which an answer takes longer over two links than over one."""

Ask: TypeAlias = Callable[[str, str, Params, float], Awaitable[Params]]
"""(replica, name, params, timeout): `gateway.replicas.exchange.ask`. Raises CallFailed."""
Here: TypeAlias = Callable[[str, str], Sequence[Agent]]
"""(cluster, its id): the agents that are attached to this replica and take calls, the ready ones first."""


class AgentCalls:
    """`call` asks, `answer` is what others ask for. A cluster may move meanwhile: as long as nothing has begun, the
    next one is asked. What may have begun is not asked again: whoever called knows whether it is safe.
    """

    def __init__(self, ownership: Ownership, ask: Ask, here: Here, clock: Callable[[], float] = time.monotonic) -> None:
        self._ownership = ownership
        self._ask = ask
        self._here = here
        self._clock = clock

    async def call(self, cluster: str, uid: str, method: str, params: Params, timeout: float) -> Params:
        """By an agent of this very cluster, wherever it is attached. Raises CallFailed."""
        timeout = min(timeout, MOST_SECONDS)
        deadline = self._clock() + timeout
        patience = self._clock() + min(timeout, PATIENCE)
        while True:
            left = deadline - self._clock()
            try:
                return await self._once(cluster, uid, method, params, left)
            except NotAsked as failed:
                if self._clock() + PAUSE >= patience:
                    raise CallFailed(failed.reason, str(failed)) from None
            await asyncio.sleep(PAUSE)

    async def _once(self, cluster: str, uid: str, method: str, params: Params, left: float) -> Params:
        place = self._ownership.place(cluster)
        if place.mine:
            return await self._call_here(cluster, uid, method, params, left)
        if not place.replica:
            raise NotAsked(f"no replica has the agents of cluster {cluster!r} at present")
        asked = {"cluster": cluster, "uid": uid, "method": method, "params": params, "seconds": left}
        said = await self._ask(place.replica, CALL, asked, left + MARGIN)
        if said.get("moved"):
            raise NotAsked(f"replica {place.replica} does not have cluster {cluster!r} any more")
        return _answer_of(said)

    async def answer(self, params: Params) -> Params:
        """Another replica asks for a call to an agent of this one's."""
        cluster, uid, method = (_text(params, key) for key in ("cluster", "uid", "method"))
        seconds, told = params.get("seconds"), params.get("params")
        if not isinstance(seconds, int | float) or not 0 <= seconds <= MOST_SECONDS or not isinstance(told, dict):
            raise CallFailed("request", "a call that is not understood")
        if not self._ownership.place(cluster).mine:
            return {"moved": True}
        try:
            return {"result": await self._call_here(cluster, uid, method, told, seconds)}
        except CallFailed as failed:
            return {"failed": {"reason": failed.reason, "message": str(failed)[:1024]}}

    async def _call_here(self, cluster: str, uid: str, method: str, params: Params, left: float) -> Params:
        agents = self._here(cluster, uid)
        if not agents:
            raise CallFailed("unavailable", f"no agent of cluster {cluster!r} is connected")
        return await agents[0].call(method, params, left)


class FarAgent:
    """A `gateway.membership.others.Agent`: any of a cluster's that are attached to another replica."""

    def __init__(self, calls: AgentCalls, cluster: str, uid: str) -> None:
        self._calls = calls
        self._cluster = cluster
        self._uid = uid

    async def call(self, method: str, params: Params, timeout: float = 10.0) -> Params:
        """See `Agent`."""
        return await self._calls.call(self._cluster, self._uid, method, params, timeout)


def _answer_of(said: Params) -> Params:
    """:raises CallFailed: what the agent, or the replica for it, says."""
    failed, result = said.get("failed"), said.get("result")
    if isinstance(failed, dict):
        raise CallFailed(str(failed.get("reason"))[:64], str(failed.get("message"))[:1024])
    if not isinstance(result, dict):
        raise CallFailed("answer", "another replica's answer to a call is not understood")
    return result


def _text(params: Params, key: str) -> str:
    found: Any = params.get(key)
    if not isinstance(found, str) or len(found) > 256:
        raise CallFailed("request", f"a call without {key}")
    return found
