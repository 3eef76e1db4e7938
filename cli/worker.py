"""One worker of `kulvert serve --workers N`, as its parent begins it: `python -m cli.worker DESCRIPTOR`."""

from __future__ import annotations

import asyncio
import signal
import sys

import click
import structlog
import uvloop

from cli import logs
from cli.failures import explained
from cli.version import current
from gateway.server import Server
from gateway.workers.boot import Boot
from gateway.workers.control import wait_for_word
from gateway.workers.process import bound_to


def main(argv: list[str]) -> int:
    """Its exit code."""
    boot = Boot.from_file(int(argv[0]))
    bound_to(boot.parent)
    logs.configure(boot.log_level, boot.log_format)
    structlog.contextvars.bind_contextvars(worker=boot.number)
    if boot.number:
        wait_for_word(boot.control)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(boot))
    except Exception as error:
        line = explained(error)
        if line is None:
            raise
        click.echo(f"kulvert: worker {boot.number}: {line}", err=True)
        return 1
    return 0


async def serve(boot: Boot) -> None:
    """Until the parent, or a signal, says that it is enough. Each says so as often as it likes: service managers send
    their signals to the parent and to its workers.
    """
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    async with Server(boot.settings, current(), boot) as server:
        loop.add_signal_handler(signal.SIGHUP, server.reopen)
        workers = server.workers
        assert workers is not None
        workers.serves(server.reopen)
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(event.wait(), name="stop") for event in (stopping, workers.stopping)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
