"""Child processes that cannot outlive the tests, however those end, and ports that are theirs alone.

Each child leads a process group of its own, so that it goes with its children, and has the kernel kill it
when this process dies, so that nothing remains after a kill -9 of pytest. The latter hangs on the *thread*
that started the child, hence only the main thread may.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# A program of its own, because preexec_fn is unsafe once there are threads. It costs about 15 ms.
_TRAMPOLINE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    # What a shell's background jobs inherit as ignored, their children would ignore too: Ctrl-C in a terminal, say.
    for one in (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def bound_to_us(argv: Sequence[str | Path]) -> list[str]:
    """The command line that runs argv and dies with this process; start it as a new session."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children die with the thread that starts them: only the main thread may")
    return [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), *map(str, argv)]


def kill_group(leader: int, signal_number: int = signal.SIGKILL) -> bool:
    """Signals a whole process group; False if nothing of it is left."""
    try:
        os.killpg(leader, signal_number)
    except ProcessLookupError:
        return False
    return True


def group_lives(leader: int) -> bool:
    """Whether anything in a process group still runs: zombies, which nobody may ever reap, do not."""
    if not kill_group(leader, 0):
        return False
    states = [_state_and_group(path) for path in Path("/proc").glob("[0-9]*/stat")]
    return any(group == str(leader) and state not in "ZX" for state, group in states)


def _state_and_group(stat: Path) -> tuple[str, str]:
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:  # it has gone meanwhile
        return "X", ""
    return fields[0], fields[2]


class Process:
    """A child that runs until it is stopped, with its output in a file."""

    def __init__(self, name: str, argv: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                bound_to_us(argv),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Also the id of its process group."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it, or any child it left, still runs."""
        return self._popen.poll() is None or group_lives(self.pid)

    @property
    def exited(self) -> int | None:
        """Its exit code, once it has one."""
        return self._popen.poll()

    def tail(self, lines: int = 15) -> str:
        """The end of its output, for a failure's message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def send(self, signal_number: int) -> None:
        """Signals its whole group."""
        kill_group(self.pid, signal_number)

    def kill(self) -> None:
        """Ends it, and waits; safe to repeat."""
        self.send(signal.SIGKILL)
        self._popen.wait()


async def stop(processes: Iterable[Process], grace: float = 1.0) -> None:
    """SIGTERM for all at once, SIGKILL for those that have not gone within the grace period."""
    chosen = list(processes)
    for process in chosen:
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + grace
    try:
        while any(process.alive for process in chosen) and time.monotonic() < deadline:  # noqa: ASYNC110 (polls)
            await asyncio.sleep(0.02)
    finally:
        for process in chosen:
            process.kill()


class Port:
    """A port of 127.0.0.1 that the kernel hands to nobody else while this lives.

    The socket stays bound without listening; with SO_REUSEADDR on both sides (Go sets it always) a server may
    still listen there, also again after a restart.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Gives the port back."""
        self._socket.close()
