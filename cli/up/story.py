"""What `up` tells: what was started, and how to go on. Commands are whole, to be copied."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.terminal import Terminal
from cli.up.request import ADMINS, HOST, PORT, USER, Request
from cli.up.target import Target

LIFETIME = 86_400.0


@dataclass(frozen=True, slots=True)
class Started:
    """What runs."""

    version: str
    port: int
    agents_port: int
    target: Target

    @property
    def url(self) -> str:
        """The users' address."""
        return f"https://{HOST}:{self.port}"


def tell_started(terminal: Terminal, request: Request, started: Started) -> None:
    """Before the check."""
    terminal.line(f"Kulvert {started.version}: server and agent in one process, for a first look", "bold")
    terminal.line()
    for name, text in _rows(request, started):
        terminal.line(f"  {name:<12}{text}")
    terminal.line()
    terminal.line("The path, as kubectl takes it", "bold")


def _rows(request: Request, started: Started) -> Iterator[tuple[str, str]]:
    yield "cluster", f"{request.cluster}, API server {started.target.address}"
    for note in started.target.notes:
        yield "", note
    yield "server", f"{started.url} for users, https://{HOST}:{started.agents_port} for agents"
    if request.port is None and started.port != PORT:
        yield "", f"port {PORT} is taken, so this is a free one; --port chooses"
    yield "kubeconfig", f"{request.admin_kubeconfig}"
    yield "", f"context {request.cluster}, user {USER}, group {ADMINS}; good for a day"


def tell_next(terminal: Terminal, request: Request, started: Started, pod: tuple[str, str] | None) -> None:
    """After the check; `ready` is the last line."""
    terminal.line()
    terminal.line("Go on in another terminal", "bold")
    for command in _commands(request, started, pod):
        terminal.line(f"  {command}", "cyan")
    terminal.line()
    terminal.line("Ctrl-C here ends everything, and removes what was made.")
    terminal.line("ready", "bold green")


def _commands(request: Request, started: Started, pod: tuple[str, str] | None) -> Iterator[str]:
    file = shlex.quote(str(request.admin_kubeconfig))
    kubectl = f"{request.kubectl} --kubeconfig {file}"
    yield f"{kubectl} get pods -A"
    where = f"-n {pod[0]} {pod[1]}" if pod else "-n NAMESPACE POD"
    yield f"{kubectl} exec -it {where} -- sh"
    yield f"{kubectl} logs -f {where}"
    state = shlex.quote(str(request.state_dir))
    user = "--user ada --group kulvert:admins -o ada.yaml"
    yield f"{_program()} kubeconfig {request.cluster} --server {started.url} --state-dir {state} {user}"


def _program() -> str:
    """This program, as it can be typed here."""
    here = Path(sys.executable).parent / "kulvert"
    if shutil.which("kulvert") or not here.exists():
        return "kulvert"
    return shlex.quote(str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here))
