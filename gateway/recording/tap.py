"""Looks on at one exec or attach, and writes down what it sees before that goes on (see `streamtap.StreamTap`).

Where the recording is required, what cannot be written down or decoded does not go on: the stream ends with the reason.
Where it is not, the recording ends, and the stream goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from gateway.recording import spdy as recordingspdy
from gateway.recording import websocket as recordingwebsocket
from gateway.recording.asciicast import Asciicast
from gateway.recording.channels import Channel, Decoder, Piece, Sizes, Undecodable
from gateway.recording.file import RecordingFile
from gateway.recording.spdy import SpdyDecoder
from gateway.recording.streamtap import TapFailed
from gateway.recording.websocket import WebSocketDecoder
from tunnel.errors import HeadError
from tunnel.ports import Headers, ResponseBlock

_log = logging.getLogger(__name__)


class Tally(Protocol):
    """Who counts recordings (gateway.recording.recordings.Recordings)."""

    def began(self) -> None: ...
    def ended(self, *, failed: bool) -> None: ...


class RecordingTap:
    """See above. `clock` is monotonic; `typed`: what was typed is recorded too."""

    def __init__(
        self,
        file: RecordingFile,
        cast: Asciicast,
        name: str,
        upgrade: bytes,
        clock: Callable[[], float],
        tally: Tally,
        *,
        required: bool,
        typed: bool,
    ) -> None:
        self._file = file
        self._cast = cast
        self._name = name
        self._upgrade = upgrade
        self._clock = clock
        self._tally = tally
        self._required = required
        self._typed = typed
        self._decoder: Decoder | None = None
        self._sizes = Sizes()
        self._began = 0.0
        self._begun = False

    @property
    def name(self) -> str:
        """The file's name, once there is something in it."""
        return self._name if self._begun else ""

    def begin(self, head: ResponseBlock) -> None:
        """See StreamTap."""
        self._began = self._clock()
        try:
            self._decoder = _decoder(self._upgrade, head.headers)
        except Undecodable as undecodable:
            self._failed(str(undecodable), HeadError(_told(str(undecodable)), 502))
            return
        self._begun = True
        self._tally.began()

    def from_cluster(self, data: bytes) -> None:
        """See StreamTap."""
        if self._decoder is not None:
            self._record(self._decoder.from_cluster, data, self._shown)

    def from_client(self, data: bytes) -> None:
        """See StreamTap."""
        if self._decoder is not None:
            self._record(self._decoder.from_client, data, self._entered)

    def end(self) -> None:
        """See StreamTap."""
        if not self._begun:
            self._file.discard()
        elif self._decoder is not None:
            self._decoder = None
            with suppress(OSError):
                self._file.write(self._cast.end(self._at()), last=True)
            self._file.close()
            self._tally.ended(failed=False)

    def _record(
        self, decode: Callable[[bytes], list[Piece]], data: bytes, written: Callable[[float, Piece], bytes]
    ) -> None:
        try:
            pieces = decode(data)
            if pieces:
                at = self._at()
                self._file.write(b"".join([written(at, piece) for piece in pieces]))
        except Undecodable as undecodable:
            self._failed(str(undecodable), TapFailed(_told(str(undecodable))))
        except OSError as error:
            reason = error.strerror or "it cannot be written"
            self._failed(reason, TapFailed(_told(reason)))

    def _shown(self, at: float, piece: Piece) -> bytes:
        channel, data = piece
        return self._cast.output(at, data) if channel in (Channel.STDOUT, Channel.STDERR) else b""

    def _entered(self, at: float, piece: Piece) -> bytes:
        channel, data = piece
        if channel is Channel.RESIZE:
            return b"".join([self._cast.resize(at, size.width, size.height) for size in self._sizes.feed(data)])
        return self._cast.input(at, data) if self._typed and channel is Channel.STDIN else b""

    def _failed(self, reason: str, error: Exception) -> None:
        """Raises the error where the session must not go on without its recording."""
        self._decoder = None
        with suppress(OSError):
            self._file.write(self._cast.note(self._at(), f"the recording ends here: {reason}"), last=True)
        self._file.close()
        _log.error("a recording has ended early", extra={"recording": self._name, "reason": reason})
        if self._begun:
            self._tally.ended(failed=True)
        if self._required:
            raise error from None

    def _at(self) -> float:
        return self._clock() - self._began


def _decoder(upgrade: bytes, headers: Headers) -> Decoder:
    websocket = upgrade == b"websocket"
    field = b"sec-websocket-protocol" if websocket else b"x-stream-protocol-version"
    chosen = [value for name, value in headers if name == field] or [b""]
    known = recordingwebsocket.PROTOCOLS if websocket else recordingspdy.PROTOCOLS
    if len(chosen) > 1 or chosen[0] not in known:
        raise Undecodable("the cluster chose a protocol that is not known")
    if websocket and any(name == b"sec-websocket-extensions" for name, _ in headers):
        raise Undecodable("the cluster chose an extension that was not asked for")
    return WebSocketDecoder(chosen[0]) if websocket else SpdyDecoder()


def _told(reason: str) -> str:
    return f"this session must be recorded, and cannot be: {reason}"
