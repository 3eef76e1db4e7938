"""Settings as options: a table of them makes the flags, and their help names the variable and the default of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Flag:
    """A setting as the command line shows it. Its value is a text: who reads the settings checks it."""

    name: str
    variable: str
    text: str
    default: object = None


def options(flags: Iterable[Flag]) -> Callable[[F], F]:
    """`--config`, and one option for each setting. The environment is the settings' own to read."""

    def decorate(command: F) -> F:
        for flag in reversed(list(flags)):
            command = _option(flag)(command)
        return _config(command)

    return decorate


def given(values: Mapping[str, str | None]) -> dict[str, str]:
    """The flags that were set, by their parameters' names."""
    return {name: value for name, value in values.items() if value is not None}


def _config(command: F) -> F:
    kind = click.Path(dir_okay=False, exists=True, path_type=Path)
    text = "A YAML file of settings, named in camelCase. The environment beats it, and flags beat both."
    made = click.option("--config", type=kind, metavar="FILE", envvar="KULVERT_CONFIG", show_envvar=True, help=text)
    return made(command)


def _option(flag: Flag) -> Callable[[F], F]:
    notes = [f"env var: {flag.variable}"]
    if shown := _shown(flag.default):
        notes.append(f"default: {shown}")
    parameter = flag.name.replace("-", "_")
    return click.option(f"--{flag.name}", parameter, metavar="VALUE", help=f"{flag.text}  [{'; '.join(notes)}]")


def _shown(default: object) -> str:
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, tuple | frozenset):
        return ",".join(sorted(map(str, default)))
    return "" if default is None else str(default)
