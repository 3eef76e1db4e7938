"""`kulvert agent`: the agent of one cluster, until it is told to stop."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.config import load, variable
from agent.settings import HELP, ConfigError, Settings
from cli import logs
from cli.settings import Flag, given, options

if TYPE_CHECKING:
    from agent.app import AgentApp
    from cli.loop import Stop

LOOK = 0.1
_DEFAULTS = {one.name: one.default for one in dataclasses.fields(Settings) if one.default is not dataclasses.MISSING}
_FLAGS = [Flag(name.replace("_", "-"), variable(name), text, _DEFAULTS.get(name)) for name, text in HELP.items()]


@click.command()
@options(_FLAGS)
@logs.options("info")
def agent(config: Path | None, log_level: str, log_format: str, **flags: str | None) -> None:
    """Run the agent of one cluster: it dials the server, and speaks to its own API server.

    \b
    kulvert agent --config agent.yaml
    kulvert agent --servers https://kulvert.example.com:8444 --cluster edge-7 --join-token-file token --ca-file ca.crt

    agent.yaml:

    \b
      servers: [https://kulvert.example.com:8444]
      cluster: edge-7
      joinTokenFile: /etc/kulvert/token
      caFile: /etc/kulvert/ca.crt

    In a pod it uses the pod's service account; elsewhere a kubeconfig, with a token or a client certificate.
    HTTPS_PROXY and NO_PROXY are honoured. It prints one line to stderr when it is attached. SIGTERM or Ctrl-C lets what
    is under way finish; a second one does not wait.
    """
    from cli.loop import run

    logs.configure(log_level, log_format)
    try:
        settings = load(config, os.environ, given(flags))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    raise SystemExit(run(lambda stop: _serve(settings, stop)))


async def _serve(settings: Settings, stop: Stop) -> None:
    from agent.app import AgentApp
    from cli.version import current

    app = AgentApp(settings, current())
    async with asyncio.TaskGroup() as group:
        told = group.create_task(_tell_ready(app, settings), name="tell when attached")
        stopping = group.create_task(_stop(app, stop), name="wait for a signal")
        await app.run()
        told.cancel()
        stopping.cancel()


async def _stop(app: AgentApp, stop: Stop) -> None:
    await stop.wait()
    click.echo("stopping", err=True)
    app.stop()


async def _tell_ready(app: AgentApp, settings: Settings) -> None:
    """Once. Attaching is the agent's own affair, so this looks from outside."""
    while app.agent is None or not app.agent.attached:  # noqa: ASYNC110 -- the agent has no event for it
        await asyncio.sleep(LOOK)
    click.echo(f"ready: cluster {settings.cluster} is attached to {settings.servers[0]}", err=True)
