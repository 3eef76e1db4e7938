"""One connection to the stub, from the dialling to the end of its greeting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from agent.attaching import Greeting
from agent.dial import Dialler
from tunnel.adapter import LinkConnection
from tunnel.batch import Batch
from tunnel.carriage import WebSocketClient
from tunnel.limits import LinkLimits

GREETING = 15.0
"""Seconds for all of it."""

G = TypeVar("G", bound=Greeting)


async def knock(
    dialler: Dialler, batch: Batch, limits: LinkLimits, greeter: Callable[[str], G], name: str | None = None
) -> tuple[str, G]:
    """Dial, and wait until the greeting that `greeter` makes for a name is done; gives the name, and the greeting.
    `name` asks for that address alone. Raises what the dialler or the greeting does, and TimeoutError; the connection
    is then gone.
    """
    greetings: list[G] = []
    names: list[str] = []
    connections: list[LinkConnection] = []

    def factory(host: str) -> LinkConnection:
        names.append(host)
        greetings.append(greeter(host))
        connections.append(LinkConnection(WebSocketClient(host), greetings[-1], batch, limits))
        return connections[-1]

    try:
        async with asyncio.timeout(GREETING):
            await dialler.dial(factory, name)
            await greetings[-1].attached
            return names[-1], greetings[-1]
    except BaseException:
        for connection in connections:
            connection.abort("not attached")
        for greeting in greetings:
            if greeting.attached.done() and not greeting.attached.cancelled():
                greeting.attached.exception()
        raise
