"""A click group whose commands are imported when they run, and whose errors are one line that says what to do next."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from cli.failures import explained


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is not imported yet. `target` is `module:attribute`."""

    name: str
    target: str
    summary: str

    def load(self) -> click.Command:
        """Import it."""
        module, _, attribute = self.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


class LazyGroup(click.Group):
    """The root of the command. Help and completion read the table of entries alone."""

    def __init__(self, *args: Any, entries: Sequence[Entry] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._entries = {entry.name: entry for entry in entries}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table: the first look comes first."""
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        entry = self._entries.get(cmd_name)
        return entry.load() if entry else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.summary) for entry in self._entries.values()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names first; options only where a dash asks for them."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        found = (entry for entry in self._entries.values() if entry.name.startswith(incomplete))
        return [CompletionItem(entry.name, help=entry.summary) for entry in found]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it cannot do, for a reason that its user can mend, becomes a line."""
        try:
            return super().invoke(ctx)
        except click.ClickException:
            raise
        except Exception as error:
            line = explained(error)
            if line is None:
                raise
            raise click.ClickException(line) from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's, with errors of one line."""
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            if not standalone_mode:
                raise
            _fail(error)
        except click.Abort:
            sys.exit(130)
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


def _fail(error: click.ClickException) -> NoReturn:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "kulvert"
    message = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
    elif isinstance(error, click.UsageError):
        click.echo(f"{path}: {message}; `{path} --help` explains", err=True)
    else:
        click.echo(f"kulvert: {message}", err=True)
    sys.exit(error.exit_code)
