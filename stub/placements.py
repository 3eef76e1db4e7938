"""Where agents' connections belonged, counted: for metrics."""

from __future__ import annotations

from enum import Enum

from tunnel.messages import Message


class Placed(Enum):
    """What became of a connection whose hello was taken. One that waits is counted once more when it is placed."""

    HERE = "here"
    MOVED = "moved"
    """Sent to the address, or by the hint, of the replica that it belongs to."""
    PASSED_ON = "passed_on"
    """Its bytes go to that replica."""
    WAITING = "waiting"


class Placements:
    """Since the beginning, by the kind of link that hello asks for, and what became of it."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, Placed], int] = {}

    def count(self, hello: Message, placed: Placed) -> None:
        """`hello` has been checked: its kind is one of three."""
        key = str(hello["link"]), placed
        self.counts[key] = self.counts.get(key, 0) + 1
