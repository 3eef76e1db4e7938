"""Header lines that were read before. A client sends much the same head each time; only its Audit-ID differs.

What was proved of a sequence of bytes is true of the same bytes again, so reading and checking them is done once. The
memory is bounded in entries and in their size, and belongs to one session: nothing of one agent's is another's.
"""

from __future__ import annotations

from typing import Any, Final

ENTRIES: Final = 256
LONGEST: Final = 4096


class KnownLines:
    """Checked header lines as pairs. `derived` is for what its users make of them; both are read only for others."""

    __slots__ = ("derived", "headers", "pass_through", "upgrades")

    def __init__(self, headers: list[tuple[bytes, bytes]], upgrades: bool, pass_through: bool = False) -> None:
        self.headers = headers
        self.upgrades = upgrades
        self.pass_through = pass_through
        self.derived: dict[object, Any] = {}


class LineMemory:
    """The newest distinct header lines of a session."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, KnownLines] = {}

    def get(self, lines: bytes) -> KnownLines | None:
        """What is known of these very bytes."""
        return self._known.get(lines)

    def put(self, lines: bytes, known: KnownLines) -> None:
        """Remember, and forget the oldest."""
        if len(lines) > LONGEST:
            return
        if len(self._known) >= ENTRIES:
            del self._known[next(iter(self._known))]
        self._known[lines] = known
