"""The agents' port of a server with several workers: the parent takes each connection, looks at which worker it asks
for, and passes the socket on, with all its bytes still in it. No TLS is done here, and nobody is believed.

Who is slow costs a socket and a place for a while, no timer and no thread: the kernel wakes us when as many bytes are
there as it takes to go on (SO_RCVLOWAT). Who says nothing makes room for others when all places are taken, as in the
door behind (`stub.door`). A worker that takes nothing for the moment has its connections wait, and in the end all wait
in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from gateway.workers import clienthello

_log = logging.getLogger(__name__)
PLACES: Final = 1_000
"""Connections that are looked at, or wait for their worker, at a time."""
GRACE: Final = 2.0
"""Seconds that each may have, however many want to come in."""
PATIENCE: Final = 10.0
"""Seconds in all for the bytes that say where a connection belongs, and for a worker to take it."""
AGAIN: Final = 0.05
"""Seconds until the next look where there was no place, or no descriptor."""
AT_ONCE: Final = 16
"""Connections that are taken before everything else has its turn."""
_FULL: Final = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)


class Porter:
    """Passes the connections of `listeners` on by `channels` (SOCK_SEQPACKET), one for each worker; both stay the
    caller's. `clock` is the loop's.
    """

    def __init__(
        self, listeners: Sequence[socket.socket], channels: Sequence[socket.socket], clock: Callable[[], float]
    ) -> None:
        self._listeners = tuple(listeners)
        self._channels = tuple(channels)
        self._clock = clock
        self._coming: dict[socket.socket, float] = {}
        """Those that are looked at, and since when."""
        self._waiting: tuple[deque[tuple[socket.socket, float]], ...] = tuple(deque() for _ in channels)
        self._next = 0
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._short = self._open = False

    def __len__(self) -> int:
        return len(self._coming) + sum(map(len, self._waiting))

    def start(self) -> None:
        """Begin to take connections."""
        self._open = True
        for listener in self._listeners:
            self._listen(listener)
        self._sweep_later()

    def stop(self) -> None:
        """Take none any more; those that no worker has are ended. Harmless when done before."""
        if not self._open:
            return
        self._open = False
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            if (pause := self._pauses.pop(listener, None)) is not None:
                pause.cancel()
            else:
                loop.remove_reader(listener)
        for sock in tuple(self._coming):
            self._drop(sock)
        for channel, waiting in zip(self._channels, self._waiting, strict=True):
            if waiting:
                loop.remove_writer(channel)
            while waiting:
                waiting.popleft()[0].close()
        if self._sweeping is not None:
            self._sweeping.cancel()

    # --- who comes

    def _listen(self, listener: socket.socket) -> None:
        self._pauses.pop(listener, None)
        asyncio.get_running_loop().add_reader(listener, self._knock, listener)

    def _pause(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        self._pauses[listener] = loop.call_later(AGAIN, self._listen, listener)

    def _knock(self, listener: socket.socket) -> None:
        if not self._room():
            return self._pause(listener)
        for _ in range(min(AT_ONCE, PLACES - len(self))):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return None
            except OSError as error:
                if not self._short:
                    _log.error("agents cannot be let in", extra={"error": error.strerror})
                self._short = True
                return self._pause(listener)
            self._short = False
            sock.setblocking(False)
            self._coming[sock] = self._clock()
            asyncio.get_running_loop().add_reader(sock, self._look, sock)
        return None

    def _room(self) -> bool:
        """See that there is a place, and say whether there is."""
        if len(self) < PLACES:
            return True
        if self._coming:
            first, since = next(iter(self._coming.items()))
            if self._clock() - since >= GRACE:
                self._drop(first)
        return len(self) < PLACES

    def _look(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(clienthello.MOST, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._drop(sock)
            return
        found = clienthello.look(data)
        if isinstance(found, int):
            if not self._await_bytes(sock, found):
                self._drop(sock)
            return
        self._leave(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._pass(self._worker(found), sock, self._clock())

    def _await_bytes(self, sock: socket.socket, total: int) -> bool:
        """Be woken when there are so many. False: its end has come before."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, total)
        return not _ended(sock)

    def _worker(self, protocols: tuple[bytes, ...]) -> int:
        asked = clienthello.worker(protocols)
        if asked is not None and asked < len(self._channels):
            return asked
        self._next = (self._next + 1) % len(self._channels)
        return self._next

    def _leave(self, sock: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(sock)
        del self._coming[sock]

    def _drop(self, sock: socket.socket) -> None:
        self._leave(sock)
        sock.close()

    # --- on to its worker

    def _pass(self, worker: int, sock: socket.socket, since: float) -> None:
        waiting, channel = self._waiting[worker], self._channels[worker]
        if not waiting and self._passed(channel, sock):
            return
        if not waiting:
            asyncio.get_running_loop().add_writer(channel, self._pass_on, worker)
        waiting.append((sock, since))

    def _pass_on(self, worker: int) -> None:
        waiting, channel = self._waiting[worker], self._channels[worker]
        while waiting:
            if not self._passed(channel, waiting[0][0]):
                return
            waiting.popleft()
        asyncio.get_running_loop().remove_writer(channel)

    def _passed(self, channel: socket.socket, sock: socket.socket) -> bool:
        """Whether it is done with, one way or another."""
        try:
            socket.send_fds(channel, [b"."], [sock.fileno()])
        except OSError as error:
            if error.errno in _FULL:
                return False
            _log.warning("an agent's connection cannot be passed to its worker", extra={"error": error.strerror})
        sock.close()
        return True

    # --- time

    def _sweep_later(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(1.0, self._sweep)

    def _sweep(self) -> None:
        self._sweep_later()
        before = self._clock() - PATIENCE
        for sock in [sock for sock, since in self._coming.items() if since < before]:
            self._drop(sock)
        for worker, waiting in enumerate(self._waiting):
            if waiting and waiting[0][1] < before:
                while waiting and waiting[0][1] < before:
                    waiting.popleft()[0].close()
                if not waiting:
                    asyncio.get_running_loop().remove_writer(self._channels[worker])


def _ended(sock: socket.socket) -> bool:
    """Whether the peer sends no more: what is missing of its bytes will never come."""
    state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return bool(state) and state[0] not in _OPEN


_OPEN: Final = (1,)
"""TCP_ESTABLISHED (linux/tcp_states.h)."""
