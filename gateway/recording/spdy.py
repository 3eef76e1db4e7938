"""exec's streams over SPDY/3.1, read by somebody who only looks on.

The client opens a stream for each channel, and says in its headers (`streamtype`) which one it is. What follows are
DATA frames, handed on in the pieces that they come in; only the headers of a stream are held until they are whole. All
header blocks of a direction are one zlib stream, so each has to be read, also those of answers, which say nothing here.

Source: SPDY protocol draft 3 (sections 2.2 and 2.6), and how github.com/moby/spdystream reads it: that takes the length
of some control frames from their type and not from their head, so heads that say another length are refused.
"""

from __future__ import annotations

import zlib
from typing import Final

from gateway.recording.channels import Channel, Piece, Undecodable

CHANNELS: Final = {
    b"stdin": Channel.STDIN,
    b"stdout": Channel.STDOUT,
    b"stderr": Channel.STDERR,
    b"error": Channel.ERROR,
    b"resize": Channel.RESIZE,
}
PROTOCOLS: Final = frozenset(
    {b"", b"channel.k8s.io", b"v2.channel.k8s.io", b"v3.channel.k8s.io", b"v4.channel.k8s.io", b"v5.channel.k8s.io"}
)
SYN_STREAM: Final = 1
SYN_REPLY: Final = 2
HEADERS: Final = 8
_SKIPPED: Final = {3: 8, 6: 4, 7: 8, 9: 8}
"""RST_STREAM, PING, GOAWAY and WINDOW_UPDATE, with their lengths."""
_SETTINGS: Final = 4
_BEFORE_BLOCK: Final = {SYN_STREAM: 10, SYN_REPLY: 4, HEADERS: 4, _SETTINGS: 3}
_VERSION: Final = 3
_HEAD: Final = 8
_MAX_BLOCK: Final = 16 * 1024
_MAX_HEADERS: Final = 64 * 1024
_MAX_STREAMS: Final = 32
_WORDS: Final = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_MORE_WORDS: Final = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_NUMBERS: Final = (
    "100 101 201 202 205 206 300 302 303 304 305 306 307 402 405 406 407 408 409 410 411 412 413 414 415 416 417 "
    "502 504 505"
)
_TEXT: Final = (
    "203 Non-Authoritative Information|204 No Content|301 Moved Permanently|400 Bad Request|401 Unauthorized|"
    "403 Forbidden|404 Not Found|500 Internal Server Error|501 Not Implemented|503 Service Unavailable|"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT|"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,public|privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def dictionary() -> bytes:
    """What SPDY/3's header compression starts from: names with their lengths, then text."""
    words = (*_WORDS.split(), *_MORE_WORDS)
    named = b"".join(len(word).to_bytes(4, "big") + word.encode() for word in words)
    return named + (_NUMBERS.replace(" ", "") + _TEXT.replace("|", "")).encode()


class SpdyDecoder:
    """See gateway.recording.channels.Decoder."""

    def __init__(self) -> None:
        streams: dict[int, Channel] = {}
        self._client = _Direction(streams, opens=True)
        self._cluster = _Direction(streams, opens=False)

    def from_client(self, data: bytes) -> list[Piece]:
        """See Decoder."""
        return self._client.feed(data)

    def from_cluster(self, data: bytes) -> list[Piece]:
        """See Decoder."""
        return self._cluster.feed(data)


class _Direction:
    def __init__(self, streams: dict[int, Channel], *, opens: bool) -> None:
        self._streams = streams
        self._opens = opens
        self._inflate = zlib.decompressobj(zdict=dictionary())
        self._held = b""
        self._left = 0
        self._channel: Channel | None = None
        """Of the DATA frame whose rest is `_left`; None: what is left is passed over."""

    def feed(self, data: bytes) -> list[Piece]:
        pieces: list[Piece] = []
        while data:
            if not self._left:
                data = self._frame(data)
                continue
            piece, data = data[: self._left], data[self._left :]
            self._left -= len(piece)
            if self._channel is not None:
                pieces.append((self._channel, piece))
        return pieces

    def _frame(self, data: bytes) -> bytes:
        """Keeps the head of a frame, and of one with headers all of it, until it is there."""
        need = _HEAD if len(self._held) < _HEAD else _HEAD + self._size()
        taken = need - len(self._held)
        self._held += data[:taken]
        if len(self._held) == need == _HEAD:
            self._begin()
        elif len(self._held) == need:
            kind, payload, self._held = self._kind(), self._held[_HEAD:], b""
            if kind == _SETTINGS:
                _check_settings(payload)
            else:
                self._headers(kind, payload)
        return data[taken:]

    def _size(self) -> int:
        return int.from_bytes(self._held[5:8], "big")

    def _begin(self) -> None:
        first, kind, size = int.from_bytes(self._held[:4], "big"), self._kind(), self._size()
        if not first >> 31:
            self._data(first, size)
        elif (first >> 16) & 0x7FFF != _VERSION:
            raise Undecodable("a frame of another version of SPDY")
        elif kind in _SKIPPED and size == _SKIPPED[kind]:
            self._held, self._left, self._channel = b"", size, None
        elif kind not in _BEFORE_BLOCK or not _BEFORE_BLOCK[kind] < size <= _MAX_BLOCK:
            raise Undecodable("an unknown SPDY frame, or one of an impossible length")

    def _kind(self) -> int:
        return int.from_bytes(self._held[2:4], "big")

    def _data(self, stream: int, size: int) -> None:
        channel = self._streams.get(stream)
        if channel is None:
            raise Undecodable("data on a SPDY stream that was not opened")
        self._held, self._left, self._channel = b"", size, channel

    def _headers(self, kind: int, payload: bytes) -> None:
        headers = _pairs(self._inflated(payload[_BEFORE_BLOCK[kind] :]))
        if kind != SYN_STREAM:
            return
        stream = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        channel = CHANNELS.get(headers.get(b"streamtype", b""))
        if not self._opens or channel is None:
            raise Undecodable("a SPDY stream that is none of exec's")
        if not stream or stream in self._streams or len(self._streams) >= _MAX_STREAMS:
            raise Undecodable("too many SPDY streams, or one of them opened twice")
        self._streams[stream] = channel

    def _inflated(self, block: bytes) -> bytes:
        try:
            plain = self._inflate.decompress(block, _MAX_HEADERS)
        except zlib.error:
            raise Undecodable("SPDY headers that cannot be decompressed") from None
        if self._inflate.unconsumed_tail or self._inflate.unused_data or self._inflate.eof:
            raise Undecodable("SPDY headers that are too large, or end their compression")
        return plain


def _check_settings(payload: bytes) -> None:
    if len(payload) != 4 + 8 * int.from_bytes(payload[:4], "big"):
        raise Undecodable("SPDY settings of an impossible length")


def _pairs(block: bytes) -> dict[bytes, bytes]:
    """A header block's names and values. One that two readers could take for different ones is refused."""
    count, at = int.from_bytes(block[:4], "big"), 4
    headers: dict[bytes, bytes] = {}
    while at < len(block):
        name, at = _text(block, at)
        value, at = _text(block, at)
        if name != name.lower() or name in headers or b"\0" in value:
            raise Undecodable("SPDY headers that can be read in two ways")
        headers[name] = value
    if len(block) < 4 or count != len(headers):
        raise Undecodable("SPDY headers that are cut")
    return headers


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    end = at + 4 + int.from_bytes(block[at : at + 4], "big")
    if end > len(block) or at + 4 > len(block):
        raise Undecodable("SPDY headers that are cut")
    return block[at + 4 : end], end
