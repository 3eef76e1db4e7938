"""The one place of the command that knows the shape of the server's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from cli.serverhelp import HELP
from cli.settings import Flag
from gateway.audit.settings import AuditSettings
from gateway.config import ConfigError, ServerConfig
from gateway.limits import DoorTimeouts
from gateway.spelling import load, settings

FLAGS: Final = tuple(Flag(one.flag, one.variable, HELP.get(one.key, ""), one.default) for one in settings())
UP_DRAIN: Final = 1.0
"""Seconds that a first look waits for what is under way: a `logs -f` in another window never ends by itself."""


def chosen(file: Path | None, env: Mapping[str, str], flags: Mapping[str, str]) -> ServerConfig:
    """The settings of `kulvert serve`; `flags` are by their parameters' names. :raises click.UsageError: of no use."""
    try:
        return load(file, env, {name.replace("_", "-"): value for name, value in flags.items()})
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def for_up(state_dir: Path, users: str, agents: str, grants: Path) -> ServerConfig:
    """The settings of the server in `kulvert up`; the addresses are HOST:PORT."""
    return ServerConfig(
        listen=(users,),
        agents_listen=(agents,),
        names=("localhost", users.rpartition(":")[0]),
        state_dir=state_dir,
        grants=grants,
        audit=AuditSettings(log_path=(str(state_dir / "audit.log"),)),
        timeouts=DoorTimeouts(drain=UP_DRAIN),
    )


def addresses(config: ServerConfig) -> tuple[str, str]:
    """Where users and agents connect, as HOST:PORT."""
    return config.listen[0], config.agents_listen[0]
