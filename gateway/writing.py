"""The writing half of a user's connection: one write for each turn, and credit for what the socket has taken.

A reader that stops holds what the transport buffers (its high-water mark) and the exchange's credit, no more:
`consumed` is owed while the transport is full, and paid when it has drained. What needs no credit (answers of the
gateway's own) is bounded by `relieve`, and by the connection, which begins no request while the transport is full.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from tunnel.batch import Batch

if TYPE_CHECKING:
    from gateway.passage import Passage


class Writing:
    """See above. `passage` is whose exchange is paid."""

    __slots__ = ("_batch", "_closing", "_dead", "_out", "_stalled", "_unpaid", "transport")

    passage: Passage | None

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._out: list[bytes] = []
        self._unpaid = 0
        self._stalled = self._closing = self._dead = False
        self.transport = cast(asyncio.Transport, None)

    def write(self, data: bytes) -> None:
        """Gather bytes for this turn's write."""
        if not self._out:
            self._batch.add(self)
        self._out.append(data)

    def owe(self, count: int) -> None:
        """These bytes get credit again when the transport has taken them."""
        self._unpaid += count

    def forgive(self) -> None:
        """The exchange is over, and needs no credit."""
        self._unpaid = 0

    def close(self) -> None:
        """Close when everything gathered has been written."""
        if self._out:
            self._closing = True
        elif not self._dead:
            self.transport.close()

    def relieve(self, most: int) -> None:
        """Write now, if more than this was gathered: then it shows whether the transport has room for more."""
        if sum(map(len, self._out)) > most:
            self.flush()

    def dead(self) -> None:
        """The transport is gone: writes lead nowhere."""
        self._dead = True
        self._stalled = False

    def flush(self) -> None:
        """See tunnel.batch.Flushable."""
        out, self._out = self._out, []
        if not self._dead and out:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._unpaid and not self._stalled:
            self._pay()
        if self._closing and not self._dead:
            self.transport.close()

    def pause_writing(self) -> None:
        """The transport is full."""
        self._stalled = True

    def resume_writing(self) -> None:
        """The transport has drained."""
        self._stalled = False
        with self._batch:
            if self._unpaid:
                self._pay()
            self.room()

    def room(self) -> None:
        """There is room again for what waited for it."""

    def _pay(self) -> None:
        count, self._unpaid = self._unpaid, 0
        passage = self.passage
        if passage is not None and passage.exchange is not None:
            passage.exchange.consumed(count)
