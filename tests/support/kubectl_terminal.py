"""kubectl on a terminal of its own, as somebody at a keyboard has it: for exec -it and attach -it."""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.kubectl import Kubectl
from tests.support.processes import bound_to_us, kill_group


class Terminal:
    """The keyboard and the screen of one running kubectl."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self.screen = ""
        self._descriptor = descriptor
        self._process = process

    def type(self, text: str) -> None:
        """Presses keys."""
        os.write(self._descriptor, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Changes the size of the window, which a terminal tells its programs by SIGWINCH."""
        _set_size(self._descriptor, rows, columns)
        kill_group(self._process.pid, signal.SIGWINCH)

    async def expect(self, text: str, timeout: float = 10) -> None:
        """Returns when the text has appeared on the screen."""
        deadline = time.monotonic() + timeout
        while text not in self.screen:
            assert time.monotonic() < deadline, f"{text!r} never appeared on: {self.screen!r}"
            await self._read()

    async def wait(self, timeout: float = 10) -> int:
        """The exit code."""
        deadline = time.monotonic() + timeout
        while (code := self._process.poll()) is None:
            assert time.monotonic() < deadline, f"still running; on the screen: {self.screen!r}"
            await self._read()
        return code

    async def _read(self) -> None:
        try:
            self.screen += os.read(self._descriptor, 65536).decode(errors="replace")
        except OSError:  # nothing there now, or EIO: nobody has the other side open any more
            await asyncio.sleep(0.02)


@contextmanager
def terminal(
    kubectl: Kubectl, *args: str, kubeconfig: Path | None = None, rows: int = 24, columns: int = 80
) -> Iterator[Terminal]:
    """Starts kubectl on a new terminal, and ends it with the block."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    _set_size(ours, rows, columns)
    process = subprocess.Popen(
        bound_to_us([kubectl.binary, *args]),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**kubectl.environment(kubeconfig), "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        kill_group(process.pid)
        process.wait()
        os.close(ours)


def _set_size(descriptor: int, rows: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
