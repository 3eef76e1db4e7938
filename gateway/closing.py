"""The end of a user's connection, from either side: all that was written is read first, where somebody reads.

close      when everything has been written, however slowly it is read, as long as it is
linger     the same behind an answer that came before the client has stopped sending: closing could lose it
cut        in mid-answer
abort      now
eof, lost  the client's: it takes its exchange with it, at once; but the last bytes of a hijacked stream go on
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from gateway.door import Door
from gateway.reading import Reading
from gateway.tcpinfo import tcp_info


class Closing(Reading, ABC):
    """See above."""

    __slots__ = ("_acked", "_discarded", "_done", "_ending", "_left", "_since")

    def __init__(self, door: Door) -> None:
        super().__init__(door)
        self._discarded = 0
        self._done = False
        """The transport is gone."""
        self._left = False
        """The peer has ended its side, behind bytes of a hijacked stream that were not read yet."""
        self._ending = False
        self._acked, self._since = -1, door.now

    @abstractmethod
    def _forget(self) -> None:
        """The transport is gone, and the last exchange too: so is the door's memory of it."""

    # --- from the client's side

    def eof_received(self) -> bool:
        """A client that has ended its side waits for no answer: TLS transports know no half-close."""
        with self._door.batch:
            self._gone(clean=True)
            if self.passage is None:
                self._end()  # the event loop closes by itself
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        with self._door.batch:
            self._gone(clean=error is None)
            self._done = True
            self._state = Closing._drop
            self._held = b""
            self.dead()
            if self.passage is None:
                self._forget()

    def look(self) -> None:
        """Nothing is read: has the client ended meanwhile? Its FIN is behind bytes that nobody takes.

        It waits for no answer then, see `eof_received`. But the last bytes of a hijacked stream go on, as they do when
        its end was read; so they have `flush` for each time that there is room for more of them.
        """
        if self._ending or self._left or (info := tcp_info(self.transport)) is None or not info.ended:
            return
        passage = self.passage
        if info.reset:
            self.abort()
        elif passage is None:
            self.close()
        elif not passage.hijacked:
            self.abort()
        else:
            self._left = True
            self.deadline = self._door.now + self._door.timeouts.flush

    def _gone(self, *, clean: bool) -> None:
        passage = self.passage
        if passage is None:
            return
        if passage.leaving is not None or not (passage.hijacked and clean):
            self.passage = None
            self._state = Closing._drop
            passage.abandoned()
        elif self._state is not Closing._drop and passage.exchange is not None:
            # The client's last bytes are still on their way upstream: end that direction, and wait a bounded time.
            self._state = Closing._drop
            self.deadline = self._door.now + self._door.timeouts.flush
            passage.request_ended = True
            passage.exchange.send_end()

    # --- from this side

    def close(self) -> None:
        """Close when everything has been written, however slowly it is read: see `_tail`."""
        if not self._ending:
            self._end()
            super().close()

    def cut(self, *, clean: bool) -> None:
        """End the connection in mid-answer. Not `clean`: without TLS's farewell, where nothing else shows the cut."""
        self.passage = None
        self._state = Closing._drop
        if self._done:
            self._forget()
        elif clean:
            self.close()
        else:
            self.transport.abort()

    def abort(self) -> None:
        """End now."""
        passage, self.passage = self.passage, None
        self._state = Closing._drop
        if passage is not None:
            passage.abandoned()
        self.transport.abort()

    def _end(self) -> None:
        self._ending = True
        self._state, self._held = Closing._drop, b""
        self.deadline = self._door.now

    def _tail(self) -> None:
        """Closing: bytes may be on their way to somebody who reads slowly. Each look asks what the kernel got rid of.

        (uvloop tells of no progress: its TLS buffer leads into another one that has no name, and that into the socket.)
        """
        now, timeouts = self._door.now, self._door.timeouts
        info = tcp_info(self.transport)
        acked = 0 if info is None else info.acked
        if acked != self._acked:
            self._acked, self._since = acked, now
        everything = info is not None and not info.pending
        if now - self._since >= (timeouts.linger if everything else timeouts.tail):
            self.transport.abort()
        else:
            self.deadline = now

    def _linger(self) -> None:
        """The answer is out and ends the connection; closing before the client has stopped sending could lose it."""
        self._held = b""
        self._state = Closing._discarding
        self.deadline = self._door.now + self._door.timeouts.linger
        self._pace()

    def _discarding(self, data: bytes) -> bytes:
        self._discarded += len(data)
        if self._discarded > self._door.limits.discarded:
            self.close()
        return b""
