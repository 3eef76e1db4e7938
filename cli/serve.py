"""`kulvert serve`: the server, until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import logs
from cli.failures import Failed
from cli.serverconfig import FLAGS, addresses, chosen
from cli.settings import given, options

if TYPE_CHECKING:
    from cli.loop import Stop
    from gateway.config import ServerConfig
    from gateway.workers.parent import Parent


@click.command()
@options(FLAGS)
@logs.options("info")
def serve(config: Path | None, log_level: str, log_format: str, **flags: str | None) -> None:
    """Run the server: the users' door and the agents' door.

    \b
    kulvert serve --config server.yaml
    kulvert serve --state-dir state --listen 0.0.0.0:8443 --agents-listen 0.0.0.0:8444 --names kulvert.example.com

    server.yaml:

    \b
      stateDir: /var/lib/kulvert
      listen: ["0.0.0.0:8443"]
      agentsListen: ["0.0.0.0:8444"]
      names: [kulvert.example.com]
      timeouts:
        drain: 10

    grants.yaml in the state directory says who may reach what; without it nothing starts:

    \b
      apiVersion: kulvert.dev/v1alpha1
      kind: Grants
      grants:
        - name: admins
          subjects: [{kind: Group, name: "kulvert:admins"}]
          clusters: ["*"]

    --workers 4 has four processes share the work of this machine; docs/workers.md says what that changes.

    It prints one line to stderr when it is ready. SIGTERM or Ctrl-C lets what is under way finish, and ends at once a
    server that is not ready yet; a second one does not wait. SIGHUP reopens the audit log, for logrotate.
    """
    from cli.loop import run

    logs.configure(log_level, log_format)
    wanted = chosen(config, os.environ, given(flags))
    if wanted.workers > 1:
        raise SystemExit(run(lambda stop: _serve_by_workers(wanted, stop, log_level, log_format)))
    raise SystemExit(run(lambda stop: _serve(wanted, stop)))


async def _serve(config: ServerConfig, stop: Stop) -> None:
    from cli.lock import only_one
    from cli.loop import Stopped
    from cli.version import current
    from gateway.server import Server

    stop.on_hangup = _nothing  # before there is a log to reopen, too: logrotate must not stop a server that starts
    with only_one(config.state_dir):
        _check_grants(config)
        try:
            async with AsyncExitStack() as stack:
                async with stop.cuts():  # a replica whose hub is away begins for as long as that lasts
                    server = await stack.enter_async_context(Server(config, current()))
                stop.on_hangup = server.reopen
                _tell_ready(config, server.port, server.agents_port)
                await stop.wait()
                click.echo("stopping", err=True)
        except Stopped:
            click.echo("stopped before it was ready", err=True)
        except (OSError, ExceptionGroup) as failed:  # in a group, where something had begun before it
            _check_taken(config, *_leaves(failed))
            raise


async def _serve_by_workers(config: ServerConfig, stop: Stop, log_level: str, log_format: str) -> None:
    """This process has the ports and the lock on the state directory; others serve."""
    from cli.lock import only_one
    from gateway.workers.parent import Parent, Program
    from gateway.workers.supervisor import WorkerFailed

    stop.on_hangup = _nothing
    with only_one(config.state_dir):
        _check_grants(config)
        program = Program(_worker_command(), _worker_environment(), log_level, log_format)
        try:
            async with Parent(config, program) as parent, asyncio.TaskGroup() as group:
                stop.on_hangup = parent.reopen
                stopping = group.create_task(_stop_when_told(stop, parent), name="wait for a signal")
                ports = parent.ports
                await parent.run(lambda: _tell_ready(config, *ports))
                stopping.cancel()
        except* WorkerFailed as failed:
            raise Failed("; ".join(str(one) for one in _leaves(failed))) from failed
        except* OSError as failed:
            _check_taken(config, *_leaves(failed))
            raise


async def _stop_when_told(stop: Stop, parent: Parent) -> None:
    await stop.wait()
    click.echo("stopping", err=True)
    parent.stop()


def _worker_command() -> tuple[str, ...]:
    """-P: what happens to lie in the working directory is no part of the program."""
    return (sys.executable, "-P", "-m", "cli.worker")


def _worker_environment() -> dict[str, str]:
    """This very program's modules, wherever it was started."""
    paths = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _check_taken(config: ServerConfig, *errors: BaseException) -> None:
    """:raises Failed: it was about a port."""
    for error in errors:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise Failed(f"{' or '.join(addresses(config))} is taken: choose other ports") from error


def _nothing() -> None: ...


def _tell_ready(config: ServerConfig, *ports: int) -> None:
    """To stderr, since stdout may be the audit log. The ports are those that were found where 0 was asked for."""
    hosts = [address.rpartition(":")[0] for address in addresses(config)]
    users, agents = (f"https://{host}:{port}" for host, port in zip(hosts, ports, strict=True))
    click.echo(f"ready: users at {users}, agents at {agents}, state in {config.state_dir}", err=True)


def _check_grants(config: ServerConfig) -> None:
    path = config.grants or config.state_dir / "grants.yaml"
    if not path.exists():
        raise Failed(f"there are no grants in {path}: write who may reach what; `kulvert serve --help` has an example")
