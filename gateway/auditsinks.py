"""Where the lines of the audit log go: a file, or what standard output is. None of them makes the loop wait for a
reader, except a file for its disk.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class AuditSink(Protocol):
    """Where lines go."""

    def write(self, data: bytes) -> int:
        """Takes the first bytes and says how many; `OSError` where none can be taken."""
        ...

    def close(self) -> None:
        """Nothing is written afterwards."""
        ...


class DescriptorSink:
    """Whatever is open already; it stays open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        """See `AuditSink`. A full pipe that does not block takes nothing for now."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """See `AuditSink`."""


class FileSink(DescriptorSink):
    """A file, appended to, that its owner alone can read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(self._open())

    def reopen(self) -> None:
        """For log rotation: goes on in a new file of the same name."""
        old, self._descriptor = self._descriptor, self._open()
        os.close(old)

    def close(self) -> None:
        """See `AuditSink`."""
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class OutputSink(DescriptorSink):
    """Standard output, whose reader may stall. O_NONBLOCK is a property of what is open and not of a descriptor, so to
    set it would make others' writes fail that share the pipe: it is opened once more for us.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(_own(descriptor))
        a_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._blocks = os.get_blocking(self._descriptor) and not a_file
        self._socket = _socket_of(self._descriptor)

    def write(self, data: bytes) -> int:
        """See `AuditSink`."""
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT)
            if self._blocks:
                # A pipe that is said to be writable has room for PIPE_BUF bytes (pipe(7)).
                return os.write(self._descriptor, data[: select.PIPE_BUF]) if _writable(self._descriptor) else 0
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """See `AuditSink`. Ours alone: standard output stays open."""
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._descriptor)


def _own(descriptor: int) -> int:
    """A pipe or terminal opened anew; a file has its offset, a socket cannot be opened, and in a container the pipe may
    be another user's: then a copy.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            return os.open(f"/proc/self/fd/{descriptor}", flags)
    return os.dup(descriptor)


def _socket_of(descriptor: int) -> socket.socket | None:
    return socket.socket(fileno=descriptor) if stat.S_ISSOCK(os.fstat(descriptor).st_mode) else None


def _writable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))
