"""A worker's process, as its parent holds it. It is begun by `exec`, not by a fork of a process that has a loop."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.workers.control import Control

_PR_SET_PDEATHSIG: Final = 1


class WorkerProcess:
    """Implements `gateway.workers.supervisor.Child`. `heard` gets what it says."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        inherited: Sequence[int],
        ours: socket.socket,
        heard: Callable[[bytes], None],
    ) -> None:
        """Begins it. `ours` is this end of its control. Raises OSError."""
        self._popen = subprocess.Popen(command, env=dict(environment), pass_fds=inherited, stdin=subprocess.DEVNULL)
        self.pid = self._popen.pid
        self._handle = os.pidfd_open(self.pid)
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._control = Control(ours, heard, lambda: None)
        asyncio.get_running_loop().add_reader(self._handle, self._reap)

    def tell(self, message: bytes) -> None:
        """See `Child`."""
        self._control.send(message)

    def kill(self, number: int) -> None:
        """See `Child`."""
        if not self._ended.done():
            signal.pidfd_send_signal(self._handle, number)

    async def wait(self) -> int:
        """Its exit code, or the signal that has ended it as a negative number."""
        return await asyncio.shield(self._ended)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        self._control.close()
        self._ended.set_result(self._popen.wait())
        os.close(self._handle)


def bound_to(parent: int) -> None:
    """In the worker: the kernel ends it with its parent, whose lock on the state directory it works under. Raises
    SystemExit where that is gone already.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)
