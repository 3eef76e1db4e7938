"""One connection to the stub, from the dialling to the end of its greeting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from agent.address import Target
from agent.attaching import Greeting
from agent.dial import Dialler
from tunnel.adapter import LinkConnection
from tunnel.batch import Batch
from tunnel.carriage import WebSocketClient
from tunnel.limits import LinkLimits, Timing

GREETING = 15.0
"""Seconds for all of it."""
ELSEWHERE = 5.0
"""Seconds for all of it, where there are other places to try: one may be frozen, or behind a network that is gone."""

G = TypeVar("G", bound=Greeting)


@dataclass(frozen=True, slots=True)
class Knocking:
    """What each connection of an agent's has in common."""

    dialler: Dialler
    batch: Batch
    limits: LinkLimits = field(default_factory=LinkLimits)
    timing: Timing = field(default_factory=Timing)


async def knock(place: Knocking, target: Target, greeter: Callable[[str], G], patience: float | None = None) -> G:
    """Dial, and wait until the greeting that `greeter` makes for a name is done, for `patience` seconds, or longer
    where the stub asks for it. Raises what the dialler or the greeting does, and TimeoutError: the connection is gone.
    """
    greetings: list[G] = []
    connections: list[LinkConnection] = []
    loop = asyncio.get_running_loop()

    def factory(host: str) -> LinkConnection:
        greeting = greeter(host)
        greeting.on_wait = lambda seconds: deadline.reschedule(max(deadline.when() or 0.0, loop.time() + seconds))
        greetings.append(greeting)
        connections.append(LinkConnection(WebSocketClient(host), greeting, place.batch, place.limits, place.timing))
        return connections[-1]

    try:
        async with asyncio.timeout(GREETING if patience is None else patience) as deadline:
            await place.dialler.dial(factory, target)
            await greetings[-1].attached
            return greetings[-1]
    except BaseException:
        for connection in connections:
            connection.abort("not attached")
        for greeting in greetings:
            if greeting.attached.done() and not greeting.attached.cancelled():
                greeting.attached.exception()
        raise
