"""This server as one of the workers of a machine: what it has of the clusters is assigned by the parent process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from gateway.database import Database
from gateway.handover import Handover, ManagementPort
from gateway.membership.registry import RegistryError
from gateway.wiring.several import Several
from gateway.wiring.tasks import Tasks
from gateway.workers import control
from gateway.workers.boot import Boot, name_of
from gateway.workers.clienthello import hint
from gateway.workers.control import Control
from gateway.workers.metrics import METRICS, MetricsOfAll
from stub.assigned import Assigned
from stub.attachment import Attachment
from stub.errors import Draining
from stub.sessions import Sessions
from tunnel.batch import Batch
from tunnel.ports import Exchange, RequestBlock, ResponseSink


class Workers(Several):
    """`boot` is what the parent has given."""

    ownership: Assigned

    def __init__(self, boot: Boot, sessions: Sessions, batch: Batch) -> None:
        super().__init__(boot.identity, sessions, batch)
        self._boot = boot
        self.ownership = Assigned(boot.workers, boot.identity, boot.epoch)
        self._database: Database | None = None
        self._metrics: MetricsOfAll | None = None
        self._tasks: Tasks
        self._control: Control
        self._reopen: Callable[[], None] = lambda: None
        self.stopping = asyncio.Event()
        """The parent wants this worker to drain, and to end."""

    async def start(self, stack: AsyncExitStack, tasks: Tasks) -> None:
        """Listen to the other workers, and to the parent."""
        await self._door.start_unix(f"unix:{self._boot.directory}/{self._boot.number}")
        stack.push_async_callback(self._door.stop)
        self._tasks = tasks
        self._begin(stack, tasks, self.ownership)
        self._control = Control(socket.socket(fileno=self._boot.control), self._hear, self._orphaned)
        stack.callback(self._control.close)

    def follow(self, database: Database) -> None:
        """The stores are open: the other workers are told of each write, so that they need not wait for their poll."""
        self._database = database
        database.on_write(lambda: self._control.send(control.WROTE))

    def serves(self, reopen: Callable[[], None]) -> None:
        """Both doors are open. `reopen` is for SIGHUP."""
        self._reopen = reopen
        self._control.send(control.READY)

    @property
    def users(self) -> tuple[socket.socket, ...]:
        """Where users come in, bound already."""
        return tuple(socket.socket(fileno=descriptor) for descriptor in self._boot.users)

    @property
    def agents(self) -> socket.socket:
        """Where agents' connections are passed to this worker."""
        return socket.socket(fileno=self._boot.agents)

    def attachment(self, single: Attachment) -> Attachment:
        """See `Several`. Agents are told how to come to this very worker."""
        return super().attachment(replace(single, hint=hint(self._boot.number)))

    def manage(self, here: Handover) -> ManagementPort:
        """See `Several`."""
        leaders = super().manage(here)
        self._metrics = MetricsOfAll(here, leaders, self.identity, self.ownership, self.peers)
        self._tasks.start("metrics of all workers", self._metrics.run)
        return self._metrics

    def _open_here(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        if cluster != METRICS:
            return super()._open_here(cluster, head, sink)
        if self._metrics is None:
            raise Draining("", "this worker has not begun yet; try again")
        return self._metrics.open_here(head, sink)

    def _hear(self, message: bytes) -> None:
        alive = control.said_alive(message)
        if alive is not None:
            self.ownership.tell(map(name_of, alive))
        elif message == control.WROTE:
            self._look()
        elif message == control.REOPEN:
            self._reopen()
        elif message == control.STOP:
            self.stopping.set()

    def _look(self) -> None:
        """Another worker has written to the stores. What cannot be read now, the next poll will see."""
        if self._database is not None:
            with suppress(RegistryError):
                self._database.poll()

    def _orphaned(self) -> None:
        """The kernel ends this process with its parent; where it was not told so, there is this."""
        self.stopping.set()
