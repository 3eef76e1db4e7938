"""A `kubectl exec -i` whose user counts: each number comes back from the pod before the next is sent."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.cluster import Cluster
from tests.support.kubectl import Running

EVERY = 0.1


class Counting:
    """An async context: inside it the session goes on, until it has counted to `most` or it breaks."""

    def __init__(self, cluster: Cluster, pod: str, kubeconfig: Path, most: int = 100_000) -> None:
        self._cluster = cluster
        self._pod = pod
        self._kubeconfig = kubeconfig
        self._most = most
        self._stack = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None
        self.count = 0
        self.wrong = ""
        self.last = 0.0
        """When the last number came back."""
        self.code: int | None = None
        """kubectl's exit code, once the session has ended."""

    async def __aenter__(self) -> Self:
        command = ("exec", "-i", self._pod, "--", "cat")
        running = await self._stack.enter_async_context(
            self._cluster.commands.running(*command, kubeconfig=self._kubeconfig)
        )
        self._task = asyncio.create_task(self._count(running))
        async with asyncio.timeout(10.0):
            while not self.count and not self._task.done():  # noqa: ASYNC110 -- polls
                await asyncio.sleep(0.02)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._stack.aclose()

    @property
    def whole(self) -> bool:
        """It has counted to its end, and kubectl says so."""
        return not self.wrong and self.count == self._most and self.code == 0

    async def end(self, patience: float) -> None:
        """Wait for its end, whatever it is. Raises TimeoutError."""
        assert self._task is not None
        async with asyncio.timeout(patience):
            await asyncio.wait((self._task,))

    async def _count(self, running: Running) -> None:
        try:
            while self.count < self._most and not self.wrong:
                await self._next(running)
                await asyncio.sleep(EVERY)
            if not self.wrong:
                running.stdin.close()
            self.code = await running.wait(20.0)
        except (OSError, TimeoutError) as error:
            self.wrong = self.wrong or repr(error)

    async def _next(self, running: Running) -> None:
        running.stdin.write(b"%d\n" % (self.count + 1))
        await running.stdin.drain()
        said = await running.line(60.0)
        if said != str(self.count + 1):
            self.wrong = f"{said!r} after {self.count}"
        else:
            self.count += 1
            self.last = time.monotonic()
