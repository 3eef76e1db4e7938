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
from typing import Final, Protocol

from gateway.audit.rotation import Rotation

_NEWLINE: Final = 0x0A


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
    """A file, appended to, that its owner alone can read; with a rotation, one that is moved away when it is large.

    A line that was torn by a crash stays torn, and the next one begins behind it, on a line of its own.
    """

    def __init__(self, path: Path, rotation: Rotation | None = None) -> None:
        self._path = path
        self._rotation = rotation
        self._size = 0
        self._regular = self._within = False
        super().__init__(self._open())

    def write(self, data: bytes) -> int:
        """See `AuditSink`. Rotates between lines only."""
        rotation = self._rotation
        if rotation is not None and self._regular and not self._within and rotation.due(self._size, len(data)):
            rotation.rotate(self.reopen)
        taken = super().write(data)
        self._size += taken
        self._within = bool(taken) and data[taken - 1] != _NEWLINE
        return taken

    def reopen(self) -> None:
        """For log rotation: goes on in a new file of the same name."""
        old, self._descriptor = self._descriptor, self._open()
        os.close(old)

    def close(self) -> None:
        """See `AuditSink`."""
        os.close(self._descriptor)
        if self._rotation is not None:
            self._rotation.close()

    def _open(self) -> int:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        seen = os.fstat(descriptor)
        # Devices and pipes are never moved away: /dev/null and /dev/stdout are everybody's.
        self._regular = stat.S_ISREG(seen.st_mode)
        self._size = seen.st_size if self._regular else 0
        if self._size and _last_byte(self._path) not in (b"", b"\n"):
            with suppress(OSError):  # a full disk shows soon enough
                self._size += os.write(descriptor, b"\n")
        return descriptor


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


def _last_byte(path: Path) -> bytes:
    """Empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1)
    except OSError:
        return b""


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
