"""What a parent and its workers say to each other: short messages over a socket pair that keeps their borders."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Collection
from typing import Final

READY: Final = b"ready"
"""A worker: both its doors are open."""
WROTE: Final = b"wrote"
"""A worker: it has written to the stores. The parent says so to the others."""
REOPEN: Final = b"reopen"
"""The parent: begin new log files (SIGHUP)."""
STOP: Final = b"stop"
"""The parent: drain, and end."""
_ALIVE: Final = b"alive"
_MOST: Final = 4_096


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends, neither of which blocks."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def wait_for_word(descriptor: int) -> None:
    """Blocks until the other end has said something, which stays to be heard, or is closed."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()


def alive(numbers: Collection[int]) -> bytes:
    """The parent's word of who serves."""
    return b" ".join([_ALIVE, *(b"%d" % number for number in sorted(numbers))])


def said_alive(message: bytes) -> list[int] | None:
    """Which ones; None where the message is another one."""
    first, *numbers = message.split()
    return [int(number) for number in numbers] if first == _ALIVE else None


class Control:
    """One end. `heard` gets each message, `ended` is called once, when the other end is closed."""

    def __init__(self, sock: socket.socket, heard: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._sock = sock
        self._heard = heard
        self._ended = ended
        self._open = True
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self._read)

    def send(self, message: bytes) -> None:
        """Harmless where the other end is closed. There is room for all that is ever said to one that lives."""
        try:
            self._sock.send(message)
        except OSError:
            pass

    def close(self) -> None:
        """Harmless when done before."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()

    def _read(self) -> None:
        try:
            message = self._sock.recv(_MOST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message = b""
        if message:
            self._heard(message)
        else:
            self.close()
            self._ended()
