"""asciicast v2: a terminal session as lines of JSON, that asciinema and others play.

    {"version": 2, "width": 80, "height": 24, "timestamp": 1763649930, …}
    [0.248848, "o", "bytes of the screen"]     also "i" (keys), "r" (size, as 100x40), "m" (a note)

The header waits for the first size, or the first event: clients tell the size first. What is no UTF-8 is replaced; a
character that is cut in two by a packet waits for its rest. No clock, no files: times come in, bytes go out.
"""

from __future__ import annotations

import codecs
from typing import Final

import orjson

_WIDTH: Final = 80
_HEIGHT: Final = 24
_DECODER: Final = codecs.getincrementaldecoder("utf-8")


class Asciicast:
    """Writes one session down. `began` is epoch seconds; times of events are seconds since then."""

    def __init__(self, began: float, title: str, command: str = "") -> None:
        self._header: dict[str, object] | None = {"version": 2, "timestamp": int(began), "title": title}
        if command:
            self._header["command"] = command
        self._decoders = {code: _DECODER("replace") for code in "oi"}
        self._last = 0.0

    def output(self, at: float, data: bytes) -> bytes:
        """What the terminal shows."""
        return self._text(at, "o", data)

    def input(self, at: float, data: bytes) -> bytes:
        """What was typed: passwords too."""
        return self._text(at, "i", data)

    def resize(self, at: float, width: int, height: int) -> bytes:
        """The terminal has this size now."""
        if self._header is not None:
            return self._begin(width, height)
        return self._event(at, "r", f"{width}x{height}")

    def note(self, at: float, text: str) -> bytes:
        """A remark of the recorder's own."""
        return self._event(at, "m", text)

    def end(self, at: float) -> bytes:
        """What was waiting for its rest."""
        return b"".join(
            self._event(at, code, text) for code, one in self._decoders.items() if (text := one.decode(b"", True))
        )

    def _text(self, at: float, code: str, data: bytes) -> bytes:
        text = self._decoders[code].decode(data)
        return self._event(at, code, text) if text else b""

    def _event(self, at: float, code: str, text: str) -> bytes:
        head = self._begin(_WIDTH, _HEIGHT) if self._header is not None else b""
        self._last = at = max(self._last, round(at, 6))  # players want times that do not run backwards
        return head + _line([at, code, text])

    def _begin(self, width: int, height: int) -> bytes:
        header, self._header = self._header or {}, None
        return _line({"version": 2, "width": width, "height": height, **header})


def _line(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
