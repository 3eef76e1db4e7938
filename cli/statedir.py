"""Where a server keeps its state, as the commands that work on it find it: `--state-dir`, and what is in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.failures import Failed

if TYPE_CHECKING:
    from gateway.membership.registry import SqliteRegistry
    from gateway.membership.stores import Stores

VARIABLE = "KULVERT_STATE_DIR"
SERVER = Path("/var/lib/kulvert")
"""`kulvert serve`'s own default."""
FIRST_LOOK = "$XDG_STATE_HOME/kulvert, else ~/.local/state/kulvert"
F = TypeVar("F", bound=Callable[..., Any])


def of_first_look(env: Mapping[str, str]) -> Path:
    """`kulvert up`'s: not a server's, and outside the working directory, since it holds private keys."""
    base = env.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "kulvert"


def option(command: F) -> F:
    """`--state-dir` of a command that works on a server's state."""
    return _option(lambda: SERVER, str(SERVER), "The server's state: its clusters, its CA.")(command)


def option_of_first_look(command: F) -> F:
    """`--state-dir` of `up`."""
    text = "Where the CA, the kubeconfig and the audit log go (mode 0700)."
    return _option(lambda: of_first_look(os.environ), FIRST_LOOK, text)(command)


def _option(default: Callable[[], Path], shown: str, text: str) -> Callable[[F], F]:
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option(
        "--state-dir", type=kind, default=default, show_default=shown, envvar=VARIABLE, show_envvar=True, help=text
    )


@contextmanager
def registry(directory: Path, *, make: bool = False) -> Iterator[SqliteRegistry]:
    """The registry of a state directory. A server that runs on it sees changes within a second.

    :raises Failed: there is none, and `make` does not say to begin one: a typing error must not make a new state.
    """
    from gateway.membership.registry import SqliteRegistry

    path = registry_file(directory)
    if not make and not path.exists():
        raise Failed(f"there is no server's state in {directory}: name it by --state-dir or {VARIABLE}")
    opened = SqliteRegistry(path)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def stores(directory: Path, *, make: bool = False) -> Iterator[Stores]:
    """All that a server knows of clusters and agents; see `registry`. :raises Failed: there is none."""
    from gateway.membership.stores import Stores

    path = registry_file(directory)
    if not make and not path.exists():
        raise Failed(f"there is no server's state in {directory}: name it by --state-dir or {VARIABLE}")
    opened = Stores.open(path)
    try:
        yield opened
    finally:
        opened.close()


def server_runs(directory: Path) -> bool:
    """Whether a server has this state directory now (cli.lock)."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def registry_file(directory: Path) -> Path:
    """The file of clusters, join tokens and agents' certificates."""
    from gateway.state import State

    return State(directory).registry
