"""The parent process of `kulvert serve --workers N`: it has the ports, the workers have the work.

The users' port has a listening socket for each worker (SO_REUSEPORT), which is the parent's to keep: what waits in the
queue of one that has died is served by its successor. Agents' connections the parent takes, and passes on.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gateway.config import ServerConfig, host_and_port
from gateway.listener import listening_socket
from gateway.state import State
from gateway.workers import control
from gateway.workers.boot import Boot
from gateway.workers.porter import Porter
from gateway.workers.process import WorkerProcess
from gateway.workers.supervisor import Supervisor
from stub.door import listening

BACKLOG: Final = 1_024
_LONGEST: Final = 90
"""Characters of a directory whose sockets' paths the kernel takes."""


@dataclass(frozen=True, slots=True)
class Program:
    """How a worker is begun: the descriptor of its `Boot` is the last word of its command."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log_level: str
    log_format: str


class Parent:
    """An asynchronous context: inside it the ports are bound, and `run` keeps the workers; at its end all is closed."""

    def __init__(self, config: ServerConfig, program: Program) -> None:
        self._config = config
        self._program = program
        self._state = State(config.state_dir)
        self._stack = AsyncExitStack()
        self._directory = Path()
        self._users: list[list[socket.socket]] = []
        """Of each worker, one for each address."""
        self._listeners: list[socket.socket] = []
        self._channels: list[tuple[socket.socket, socket.socket]] = []
        self._porter: Porter
        clock = asyncio.get_running_loop().time
        patience = config.timeouts.lameduck + config.timeouts.drain
        self._supervisor = Supervisor(config.workers, self._begin, clock, patience)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._directory = Path(stack.enter_context(_directory(self._state.directory)))
            stack.callback(self._close)
            self._users = _users_sockets(self._config)
            for address in self._config.agents_listen:
                self._listeners += await listening(*host_and_port(address))
            self._channels = [control.pair() for _ in range(self._config.workers)]
            ours = [one for one, _ in self._channels]
            self._porter = Porter(self._listeners, ours, asyncio.get_running_loop().time)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def ports(self) -> tuple[int, int]:
        """The users' and the agents'."""
        return self._users[0][0].getsockname()[1], self._listeners[0].getsockname()[1]

    async def run(self, ready: Callable[[], None]) -> None:
        """Keep the workers, until all have ended after `stop`. `ready` is called once, when all of them serve. Raises
        WorkerFailed, within a group.
        """
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(self._open(ready), name="workers: ready")
            try:
                await self._supervisor.run()
            finally:
                opening.cancel()
                self._porter.stop()

    async def _open(self, ready: Callable[[], None]) -> None:
        await self._supervisor.ready()
        self._porter.start()
        ready()

    def reopen(self) -> None:
        """For SIGHUP."""
        self._supervisor.reopen()

    def stop(self) -> None:
        """Nobody new is let in, and the workers drain. Their own sockets listen until they close them."""
        self._porter.stop()
        for sock in [*self._listeners, *(sock for some in self._users for sock in some)]:
            sock.close()
        self._supervisor.stop()

    def _begin(self, number: int, heard: Callable[[bytes], None]) -> WorkerProcess:
        """See `gateway.workers.supervisor.Begin`. Each one has an epoch of its own: it outranks the one before it."""
        ours, theirs = control.pair()
        users = tuple(sock.fileno() for sock in self._users[number])
        agents = self._channels[number][1].fileno()
        boot = Boot(
            number,
            self._config.workers,
            self._state.next_epoch(time.time()),
            os.getpid(),
            self._config,
            self._directory,
            users,
            agents,
            theirs.fileno(),
            self._program.log_level,
            self._program.log_format,
        )
        file = boot.to_file()
        try:
            command = [*self._program.command, str(file)]
            inherited = (*users, agents, theirs.fileno(), file)
            return WorkerProcess(command, self._program.environment, inherited, ours, heard)
        except OSError:
            ours.close()
            raise
        finally:
            os.close(file)
            theirs.close()

    def _close(self) -> None:
        for sock in [*self._listeners, *(sock for some in self._users for sock in some)]:
            sock.close()
        for ends in self._channels:
            for end in ends:
                end.close()


def _users_sockets(config: ServerConfig) -> list[list[socket.socket]]:
    """All or none. Another server's port would be shared with it, and never refused: so it is asked for alone first."""
    made: list[list[socket.socket]] = [[] for _ in range(config.workers)]
    try:
        for address in config.listen:
            host, port = host_and_port(address)
            alone = listening_socket(host, port)
            try:
                alone.listen(1)
            finally:
                alone.close()
            for some in made:
                sock = listening_socket(host, port, shared=True)
                port = sock.getsockname()[1]
                some.append(sock)
    except OSError:
        for sock in [sock for some in made for sock in some]:
            sock.close()
        raise
    return made


def _directory(state: Path) -> tempfile.TemporaryDirectory[str]:
    """Of mode 0700, with a path that is short enough for sockets; it goes with the parent."""
    near = len(os.fsencode(state)) <= _LONGEST - 20
    return tempfile.TemporaryDirectory(prefix="workers-" if near else "kulvert-", dir=state if near else None)
