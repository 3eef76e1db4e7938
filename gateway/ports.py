"""The two sides of a passage: the connection it came by, and who serves it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.passage import Passage
    from gateway.peer import Peer
    from tunnel.errors import ExchangeReset


class Outcome(enum.Enum):
    """How a passage ended, for audit and metrics."""

    COMPLETE = "complete"
    CLIENT_GONE = "client-gone"
    CUT = "cut"


class Client(Protocol):
    """The connection, as its current passage sees it."""

    peer: Peer

    @property
    def leaving(self) -> bool: ...

    def write(self, data: bytes) -> None: ...
    def owe(self, count: int) -> None: ...
    def proceed(self) -> None: ...
    def hijack(self) -> None: ...
    def withhold(self, patience: float) -> None: ...
    def writable(self) -> None: ...
    def finished(self, *, keep: bool, request_ended: bool) -> None: ...
    def cut(self, *, clean: bool) -> None: ...


class Owner(Protocol):
    """Who serves passages: the pipeline."""

    date: bytes

    def reset(self, passage: Passage, error: ExchangeReset) -> None:
        """The exchange failed before an answer began: try again or answer with a Status."""

    def began(self, passage: Passage) -> None:
        """The head of a cluster's answer to a long request is on its way to the client."""

    def ended(self, passage: Passage, outcome: Outcome) -> None:
        """The passage is over: audit and count it. Called once."""
