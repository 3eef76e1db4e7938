"""Local processes without a server: on pipes and terminals, on both event loops."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from cli.sample.fds import FdReader
from cli.sample.process import Command
from cli.sample.processes import Processes
from cli.sample.status import ApiError

ENV = {"PATH": "/usr/bin:/bin"}


async def read_all(reader: FdReader) -> bytes:
    parts = []
    while data := await reader.read():
        parts.append(data)
    return b"".join(parts)


async def echo(home: Path, tty: bool) -> None:
    processes = Processes()
    before = len(os.listdir("/dev/fd"))
    async with processes.run(Command(["cat"], home, ENV, stdin=True, tty=tty)) as process:
        assert process.stdin is not None
        await process.stdin.write(b"hello\n")
        await process.end_input()
        assert b"hello" in await read_all(process.stdout)
        assert await process.wait() == 0
    assert (processes.count, len(os.listdir("/dev/fd"))) == (0, before)


async def ignored_input(home: Path, tty: bool) -> None:
    """A writer that waits for room is woken by the end of the process."""
    processes = Processes()
    async with processes.run(Command(["sleep", "60"], home, ENV, stdin=True, tty=tty)) as process:
        assert process.stdin is not None
        writing = asyncio.ensure_future(process.stdin.write(b"x" * 10_000_000))
        await asyncio.sleep(0.1)
        process.close()
        with pytest.raises(BrokenPipeError):
            await writing
        assert await process.wait() == 137


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("case", [echo, ignored_input])
def test_it_works_on_both_loops_and_leaves_no_descriptor(
    case: Callable[[Path, bool], Awaitable[None]],
    tty: bool,
    loop: Callable[[], asyncio.AbstractEventLoop],
    tmp_path: Path,
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_as_coroutine(case(tmp_path, tty)))


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


async def test_a_program_that_cannot_be_started_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"\x7fELF")
    (tmp_path / "broken").chmod(0o700)
    before = len(os.listdir("/dev/fd"))
    for command in ("none", "./broken", "a\0b"):
        with pytest.raises(ApiError):
            async with Processes().run(Command([command], tmp_path, ENV, stdin=True)):
                raise AssertionError
    assert len(os.listdir("/dev/fd")) == before


async def test_closing_ends_all_of_them(tmp_path: Path) -> None:
    processes = Processes()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(_sleep(processes, tmp_path))
        await asyncio.sleep(0.1)
        assert processes.count == 3
        await processes.close()


async def _sleep(processes: Processes, home: Path) -> None:
    async with processes.run(Command(["sleep", "60"], home, ENV)) as process:
        assert await process.wait() == 137
