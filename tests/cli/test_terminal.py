"""Lines for people and for pipes."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cli.terminal import PatientConsole, Terminal


def plain() -> tuple[Terminal, io.StringIO]:
    out = io.StringIO()
    ticks = iter((0.0, 0.012, 1.0, 3.5))
    return Terminal(Console(file=out, width=40, highlight=False), lambda: next(ticks)), out


def test_a_command_is_never_wrapped_nor_read_as_markup() -> None:
    terminal, out = plain()
    line = "kubectl --kubeconfig /a/very/long/path/to/a/kubeconfig get pods -A -l '[red]x[/red]'"
    terminal.line(line, "cyan")
    assert out.getvalue() == line + "\n"


def test_a_step_says_how_it_ended_and_how_long_it_took() -> None:
    terminal, out = plain()
    with terminal.step("first") as step:
        step.detail = "found"
    with pytest.raises(KeyError), terminal.step("second"):
        raise KeyError
    first, second = out.getvalue().splitlines()
    assert first.split() == ["ok", "first", "12", "ms", "found"]
    assert second.split() == ["failed", "second", "2.5", "s"]


def test_on_a_terminal_it_is_in_colour() -> None:
    out = io.StringIO()
    terminal = Terminal(Console(file=out, force_terminal=True, highlight=False))
    with terminal.step("first"):
        pass
    assert "\x1b[" in out.getvalue()


def test_a_reader_that_has_gone_stops_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    terminal = Terminal(PatientConsole(file=Gone(), highlight=False))
    terminal.line("one")
    terminal.line("two")
