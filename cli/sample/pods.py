"""The local side of pods: a temporary directory, a log, and for the demo pod a process that writes it.

Other pods do not run anything by themselves, since the sample has no images; their log says so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cli.sample.journal import Journal
from cli.sample.process import Command, Process
from cli.sample.processes import Processes
from cli.sample.sources import Sources
from cli.sample.status import ApiError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOG_LINES = 5000
_LINE_LIMIT = 64 * 1024
_NOTE = b"this is a Kulvert sample: no image is run in this pod; exec starts local processes\n"


@dataclass(frozen=True, slots=True)
class Line:
    at: datetime
    text: bytes


@dataclass(slots=True)
class Pod:
    """What there is on this machine for one pod, from the first look at it until it is deleted."""

    home: Path
    log: Journal[Line] = field(default_factory=lambda: Journal(_LOG_LINES))
    task: asyncio.Task[None] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class PodHost:
    def __init__(self, root: Path, processes: Processes, sources: Sources) -> None:
        self._root = root
        self._sources = sources
        self._pods: dict[str, Pod] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.processes = processes

    def pod(self, uid: str) -> Pod:
        """The pod, set up when it is first asked for; callers have found it in the store."""
        if uid not in self._pods:
            pod = self._new(uid)
            pod.log.append(Line(self._sources.now(), _NOTE))
        return self._pods[uid]

    def run(self, uid: str, argv: Sequence[str]) -> None:
        """Start a pod whose container is a real process; its output is the log."""
        pod = self._new(uid)
        command = Command(argv, pod.home, environment(pod.home, "demo"))
        pod.task = asyncio.get_running_loop().create_task(self._supervise(pod, command), name=f"pod {uid}")

    def stop(self, uid: str) -> None:
        """End a deleted pod's process, its log's followers and whatever was exec'ed in it."""
        pod = self._pods.pop(uid, None)
        if pod is None:
            return
        pod.gone.set()
        pod.log.close()
        if pod.task is not None:
            pod.task.cancel()
            self._ending.add(pod.task)
            pod.task.add_done_callback(self._ending.discard)
        shutil.rmtree(pod.home, ignore_errors=True)

    async def close(self) -> None:
        for uid in list(self._pods):
            self.stop(uid)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self.processes.close()

    def _new(self, uid: str) -> Pod:
        home = self._root / uid
        home.mkdir(mode=0o700)
        self._pods[uid] = Pod(home)
        return self._pods[uid]

    async def _supervise(self, pod: Pod, command: Command) -> None:
        """Restart policy Always: a container that ends is started again, after a second."""
        while True:
            try:
                async with self.processes.run(command) as process:
                    await self._log(process, pod.log)
            except ApiError as error:
                pod.log.append(Line(self._sources.now(), f"not started: {error}\n".encode()))
            await asyncio.sleep(1)

    async def _log(self, process: Process, log: Journal[Line]) -> None:
        rest = b""
        while data := await process.stdout.read():
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE_LIMIT:
                lines, rest = [*lines, rest], b""
            for line in lines:
                log.append(Line(self._sources.now(), line + b"\n"))


def environment(home: Path, hostname: str, *, tty: bool = False) -> dict[str, str]:
    """As little as a shell needs: nothing of the sample's own environment, least of all its secrets."""
    env = {"PATH": PATH, "HOME": os.fspath(home), "HOSTNAME": hostname}
    env |= {"LANG": "C.UTF-8", "KULVERT_SAMPLE": "true"}
    return env | {"TERM": "xterm"} if tty else env
