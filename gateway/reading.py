"""The reading half of a user's connection: one state takes the bytes, and what nobody takes yet is held.

The current state is the function that takes the next bytes; it returns what it did not use, for the state that follows.
What comes while a request waits for its answer, or its connection for room, is held, 64 KiB and one read at most; then
the socket is paused. So it is while the exchange that takes a body is full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gateway.writing import Writing

if TYPE_CHECKING:
    from gateway.door import Door
    from gateway.passage import Passage

NEVER: Final = float("inf")
"""The deadline of what may last."""
State: TypeAlias = Callable[[Any, bytes], bytes]
"""Takes the connection, and bytes; returns what it leaves of them."""


class Reading(Writing):
    """See above. `deadline` is when the door's sweep asks whether it goes on; `reading` whether the socket is read."""

    __slots__ = ("_door", "_full", "_held", "_state", "deadline", "passage", "reading")

    def __init__(self, door: Door) -> None:
        super().__init__(door.batch)
        self._door = door
        # Not a bound method: the cycle would keep every connection until the garbage collector runs.
        self._state: State = Reading._drop
        self._held = b""
        self._full = False
        """What takes the bytes, or the transport that takes the answers, has no room."""
        self.passage: Passage | None = None
        self.deadline = NEVER
        self.reading = True

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        with self._door.batch:
            self._input(data)

    def _input(self, data: bytes) -> None:
        """Run bytes through the states. Answers that complete in here change the state; the loop goes on with it."""
        while data:
            data = self._state(self, data)
            if data and self.passage is None:
                self.relieve(self._door.limits.write_buffer)

    def _enter(self, state: State, patience: float) -> None:
        """Change the state, and give it what was held. (Within `_input` nothing is held.)"""
        self._state = state
        self.deadline = self._door.now + patience
        held, self._held = self._held, b""
        self._pace()
        if held:
            self._input(held)

    def _await_room(self, patience: float) -> None:
        """What comes next waits until the client has read: see `room`."""
        self._state = Reading._holding
        self._full = True
        self.deadline = self._door.now + patience
        self._pace()

    @property
    def _awaits_room(self) -> bool:
        return self._full and self.passage is None and self._state is Reading._holding

    def withhold(self, patience: float) -> None:
        """The stream is being ended: what its client sends goes nowhere. `Passage.leave` is called after a while."""
        self._state, self._held = Reading._drop, b""
        self.deadline = min(self.deadline, self._door.now + patience)
        self._full = False
        self._pace()

    def _pace(self) -> None:
        """Read the socket, or do not: what is full (exchange, transport), or bytes that nobody takes yet, stop it."""
        reading = not self._full and len(self._held) <= self._door.limits.held
        if reading is not self.reading and not self.transport.is_closing():
            self.reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    # --- states of any connection

    def _holding(self, data: bytes) -> bytes:
        self._held += data
        self._pace()
        return b""

    def _drop(self, data: bytes) -> bytes:
        return b""
