"""What every TCP connection of ours is set to.

A peer that vanishes without a FIN has to be noticed: by keep-alive probes while nothing is under way, and by
TCP_USER_TIMEOUT while sent bytes are not acknowledged (otherwise Linux tries for about 15 minutes). The latter also
counts the time for which a living peer does not read: it is not set where that is a user's right (a pager, a command
that leaves its stdin alone).
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from contextlib import suppress
from typing import Any

KEEPALIVE_IDLE = 15
KEEPALIVE_INTERVAL = 5
KEEPALIVE_PROBES = 3
USER_TIMEOUT_MS = 30_000
WRITE_HIGH = 64 * 1024

_OPTIONS = (
    ("TCP_NODELAY", 1),
    ("TCP_KEEPIDLE", KEEPALIVE_IDLE),
    ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
    ("TCP_KEEPCNT", KEEPALIVE_PROBES),
)
_TIMEOUT = (("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),)


def tune(transport: asyncio.BaseTransport) -> None:
    """Set the options on a connection whose peer reads, as links and API servers do (but see `allow_stall`)."""
    sock: Any = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        tune_socket(sock, stalls=False)


def tune_socket(sock: Any, *, stalls: bool) -> None:
    """Set the options that this platform knows; `stalls`: the peer may stop reading for as long as it likes.

    On a listening socket, its connections inherit them. A connection that has just gone keeps none, and tells so soon
    enough.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (*_OPTIONS, *(() if stalls else _TIMEOUT)):
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        return


def allow_stall(transport: asyncio.BaseTransport) -> None:
    """Let a peer that is alive stop reading for as long as it likes.

    TCP_USER_TIMEOUT ends a connection whose peer has closed its window, though that peer answers every probe; and
    behind a stream may be a command that reads its stdin in an hour. One that has vanished is found by keep-alive, or
    where bytes are under way by Linux's own 15 minutes.
    """
    sock: Any = transport.get_extra_info("socket")
    if sock is not None and (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, 0)


def end_after_bytes(transport: Any) -> None:
    """Have a TLS transport that is paused see its end only after the bytes before it.

    uvloop's `pause_reading` stops decrypting, and leaves the socket open. When a FIN comes then, it closes at once, and
    what it holds, encrypted and unread, is lost: the last lines of a log, the last output of an exec. With these limits
    it stops the socket as soon as anything is held, and reads on when all of that was decrypted.
    """
    set_limits = getattr(transport, "set_read_buffer_limits", None)
    if set_limits is not None:  # a plain TCP transport has no such limits, and no such flaw
        set_limits(1, 0)


def unsent(transport: asyncio.WriteTransport) -> int:
    """Bytes that are on their way to the peer: the transport's, and those not acknowledged to the kernel yet."""
    size = transport.get_write_buffer_size()
    sock: Any = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError, ValueError):
            (queued,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
            size += queued
    return size
