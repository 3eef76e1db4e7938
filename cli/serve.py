"""`kulvert serve`: the server, until it is told to stop."""

from __future__ import annotations

import errno
import os
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

    It prints one line to stderr when it is ready. SIGTERM or Ctrl-C lets what is under way finish; a second one does
    not wait. SIGHUP reopens the audit log, for logrotate.
    """
    from cli.loop import run

    logs.configure(log_level, log_format)
    wanted = chosen(config, os.environ, given(flags))
    raise SystemExit(run(lambda stop: _serve(wanted, stop)))


async def _serve(config: ServerConfig, stop: Stop) -> None:
    from cli.lock import only_one
    from cli.version import current
    from gateway.server import Server

    stop.on_hangup = _nothing  # before there is a log to reopen, too: logrotate must not stop a server that starts
    with only_one(config.state_dir):
        _check_grants(config)
        try:
            async with Server(config, current()) as server:
                stop.on_hangup = server.reopen
                _tell_ready(config, server.port, server.agents_port)
                await stop.wait()
                click.echo("stopping", err=True)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                taken = " or ".join(addresses(config))
                raise Failed(f"{taken} is taken: choose other ports") from error
            raise


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
