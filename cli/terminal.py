"""What people read: colours and a spinner on a terminal, the same lines as plain text elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.text import Text

WIDTH = 34
"""Columns for the name of a step; longer names push their detail to the right."""


class PatientConsole(Console):
    """rich ends the program where a pipe's reader has gone. This one goes on in silence: it has more to do."""

    def on_broken_pipe(self) -> None:
        """Send the rest to nowhere, what Python flushes at its exit included."""
        self.quiet = True
        with suppress(OSError):  # a file that is none has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)


class Terminal:
    """Lines to stdout. A reader that has gone (`kulvert up | head`, a closed window) stops nothing."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or PatientConsole(highlight=False)
        self._clock = clock
        self._gone = False

    def line(self, text: str = "", style: str = "") -> None:
        """One line; never wrapped, so that a command in it can be copied."""
        self._print(Text(text, style=style))

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Something that takes a while: its outcome, and how long it took."""
        step, began = Step(), self._clock()
        try:
            with self._working(name):
                yield step
        except Exception:
            self._outcome("failed", "bold red", name, step.detail, began)
            raise
        self._outcome("ok", "green", name, step.detail, began)

    @contextmanager
    def _working(self, name: str) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(Text(name)):
            yield

    def _outcome(self, word: str, style: str, name: str, detail: str, began: float) -> None:
        spent = _duration(self._clock() - began)
        parts = (f"  {word:<7}", style), f"{name:<{WIDTH}} ", (f"{spent:>8}", "dim"), f"  {detail}".rstrip()
        self._print(Text.assemble(*parts))

    def _print(self, text: Text) -> None:
        if self._gone:
            return
        try:
            self._console.print(text, soft_wrap=True)
            self._console.file.flush()
        except OSError:
            self._gone = True


class Step:
    """`detail` is what the step found."""

    def __init__(self) -> None:
        self.detail = ""


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
