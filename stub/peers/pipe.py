"""Bytes of a link that this process does not read: from one connection to another, with back-pressure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tunnel.adapter import LinkConnection
from tunnel.limits import KIB
from tunnel.sockets import end_after_bytes

HIGH: Final = 256 * KIB
"""Bytes that may wait for a connection which takes none before the other one is read no more. (One read more may be
under way.)
"""


class Pipe:
    """What one of two joined connections carries (`tunnel.adapter.Carried`). `far` is what the other one does."""

    unfinished: Final = False

    def __init__(self, connection: LinkConnection) -> None:
        self.on_output: Callable[[], None] = lambda: None
        self.on_close: Callable[[str], None] = lambda _reason: None
        self.on_finish: Callable[[str], None] = lambda _reason: None
        self.closed = False
        self.paused = False
        self.far: Pipe | None = None
        self._connection = connection
        self._waiting: list[bytes] = []
        self._size = 0
        self._stopped = False
        self._on_end: Callable[[str], None] = lambda _reason: None

    def attach(self, on_end: Callable[[str], None]) -> None:
        """The connection carries this from now on. `on_end` is told when it has ended."""
        self._on_end = on_end
        self._connection.attach(self, lambda _pipe, reason: self._ended(reason), _never)
        if self._connection.transport is not None:
            end_after_bytes(self._connection.transport)

    # --- from the connection

    def receive(self, data: bytes) -> None:
        if self.far is None:
            self.read_on()  # or the end of the connection would not be seen
            self.on_close("bytes came before the other replica had answered")
        else:
            self.far.push(data)

    def take(self) -> list[bytes]:
        taken, self._waiting, self._size = self._waiting, [], 0
        if self.far is not None:
            self.far.read_on()
        return taken

    def resume(self) -> None:
        self.paused = False
        if self._waiting:
            self.on_output()

    def _ended(self, reason: str) -> None:
        """Both ends go, this one's last bytes behind all that came before them."""
        self._on_end(reason)
        far, self.far = self.far, None
        if far is not None:
            far.finish(reason)

    # --- from the other pipe

    def push(self, data: bytes) -> None:
        """Bytes to write here."""
        self._waiting.append(data)
        self._size += len(data)
        self.on_output()
        if self._size > HIGH and self.far is not None:
            self.far.stop_reading()

    def finish(self, reason: str) -> None:
        """Nothing follows what was pushed. Harmless when it has ended."""
        self.read_on()  # the peer's own end has to be seen
        self._connection.finish(reason)

    def refuse(self, frame: bytes, reason: str) -> None:
        """There is no other one: a last word instead."""
        self.push(frame)
        self.finish(reason)

    def stop_reading(self) -> None:
        """The far side does not take its bytes."""
        transport: Any = self._connection.transport
        if not self._stopped and transport is not None and not transport.is_closing():
            self._stopped = True
            transport.pause_reading()

    def read_on(self) -> None:
        """The far side takes bytes again."""
        transport: Any = self._connection.transport
        if self._stopped and transport is not None and not transport.is_closing():
            self._stopped = False
            transport.resume_reading()

    @property
    def held(self) -> int:
        """Bytes that wait here."""
        return self._size


def join(near: Pipe, far: Pipe) -> None:
    """What one receives, the other one sends."""
    near.far, far.far = far, near


def _never() -> bool:
    return False
