"""Who looks on at a hijacked stream: a tap, which sees each piece before it goes on, and what follows a WebSocket's
frames, so that the end of it can be said.

A stream at which nobody looks has none of this: its bytes are copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.websocketfarewell import farewell_of

if TYPE_CHECKING:
    from gateway.failures import Answer
    from gateway.recording.streamtap import StreamTap
    from gateway.websocketfarewell import Farewell
    from tunnel.ports import Headers
    from tunnel.requestinfo import RequestInfo


class Hijack:
    """The opaque bytes behind one 101."""

    __slots__ = ("_farewell", "_tap")

    def __init__(self, tap: StreamTap | None, farewell: Farewell | None) -> None:
        self._tap = tap
        self._farewell = farewell

    @property
    def midway(self) -> bool:
        """Whether a message of the cluster's has begun, behind whose end there is a place for a farewell."""
        return self._farewell is not None and self._farewell.frames.midway

    def to_client(self, data: bytes) -> bytes:
        """The cluster's bytes are about to go on. Raises TapFailed where they must not."""
        if self._tap is not None:
            self._tap.from_cluster(data)
        if self._farewell is not None:
            self._farewell.feed(data)
        return data

    def rest(self, data: bytes) -> bytes:
        """The same, but for what is behind the message that is `midway`: that stays."""
        if self._tap is not None:
            self._tap.from_cluster(data)
        return data if self._farewell is None else data[: self._farewell.frames.finish(data)]

    def words(self, answer: Answer) -> bytes:
        """The last bytes of the stream, as it is now; nothing where they cannot be put."""
        return b"" if self._farewell is None else self._farewell.words(answer.body, answer.message)


def hijack_of(tap: StreamTap | None, upgrade: bytes, info: RequestInfo | None, headers: Headers) -> Hijack | None:
    """For a stream that begins with a 101 of these headers."""
    farewell = None
    if upgrade == b"websocket" and info is not None:
        farewell = farewell_of(info.subresource, headers)
    return None if tap is None and farewell is None else Hijack(tap, farewell)
