"""A TCP relay as a process of its own: `python -m tests.support.netrelay HOST PORT TARGET_HOST TARGET_PORT`.

It gives a server that listens on loopback an address in a network of namespaces (`tests.support.netns`).
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from tests.support.balancer import Half


class _Passing(Half):
    """A client's side."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._relay.own(asyncio.get_running_loop().create_task(self._connect()))

    async def _connect(self) -> None:
        try:
            _, back = await asyncio.get_running_loop().create_connection(Half, *self._relay.target)
        except OSError:
            self.transport.abort()
            return
        back.join(self)
        self.join(back)


class Relay:
    """All of it."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self._tasks: set[asyncio.Task[None]] = set()

    def own(self, task: asyncio.Task[None]) -> None:
        """Until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, host: str, port: int) -> None:
        """Until it is killed."""
        server = await asyncio.get_running_loop().create_server(lambda: _Passing(self), host, port)
        print("ready: relaying", flush=True)
        await server.serve_forever()


def main() -> None:
    """See the module."""
    host, port, target, target_port = sys.argv[1:]
    uvloop.run(Relay((target, int(target_port))).run(host, int(port)))


if __name__ == "__main__":
    main()
