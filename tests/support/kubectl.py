"""kubectl as its users run it: an unmodified binary, a kubeconfig, nothing of this process's environment."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import bound_to_us, kill_group

SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}


@dataclass(frozen=True)
class Result:
    """What a finished command left behind."""

    args: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        """stdout as text, without the last newline."""
        return self.stdout.decode(errors="replace").rstrip("\n")

    @property
    def err(self) -> str:
        """stderr as text, without the last newline."""
        return self.stderr.decode(errors="replace").rstrip("\n")

    def check(self) -> "Result":
        """Itself, if the command succeeded; an AssertionError with its output otherwise."""
        command = " ".join(self.args)
        assert self.returncode == 0, f"kubectl {command}: exit code {self.returncode}\n{self.out}\n{self.err}"
        return self


class Running:
    """A kubectl that goes on (logs -f, port-forward, get -w), with its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    async def line(self, timeout: float | None = 10) -> str:
        """The next line of stdout; an empty string at its end."""
        async with asyncio.timeout(timeout):
            return (await self.stdout.readline()).decode().rstrip("\n")

    async def wait(self, timeout: float = 10) -> int:
        """Its exit code."""
        async with asyncio.timeout(timeout):
            return await self.process.wait()


@dataclass(frozen=True)
class Kubectl:
    """One kubectl binary with a default kubeconfig and a home directory for its caches."""

    binary: Path
    kubeconfig: Path
    home: Path

    async def run(
        self,
        *args: str | Path,
        kubeconfig: Path | None = None,
        input: bytes | None = None,
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Runs to the end; a command that does not end in time is killed, with a TimeoutError."""
        async with self.running(*args, kubeconfig=kubeconfig, env=env) as running, asyncio.timeout(timeout):
            stdout, stderr = await running.process.communicate(input or b"")
            return Result(tuple(map(str, args)), running.process.returncode or 0, stdout, stderr)

    @asynccontextmanager
    async def running(
        self, *args: str | Path, kubeconfig: Path | None = None, env: Mapping[str, str] | None = None
    ) -> AsyncIterator[Running]:
        """Starts it, and ends it with the block."""
        process = await asyncio.create_subprocess_exec(
            *bound_to_us([self.binary, *args]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment(kubeconfig, env),
            start_new_session=True,
        )
        try:
            yield Running(process)
        finally:
            await _end(process)

    def environment(self, kubeconfig: Path | None = None, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """PATH, HOME, KUBECONFIG, and nothing else that could lead kubectl (a proxy, say) astray."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            **(more or {}),
        }


async def _end(process: asyncio.subprocess.Process) -> None:
    """Also reads the pipes to their ends, or their transports would stay open."""
    if process.returncode is None:
        kill_group(process.pid)
    if process.stdin and not process.stdin.is_closing():
        process.stdin.close()
    for stream in (process.stdout, process.stderr):
        if stream:
            await stream.read()
    await process.wait()
