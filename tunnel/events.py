"""Where a watch may be ended: behind a whole event, so that its client goes on from there and nothing looks broken.

In JSON a newline ends each event, and is nowhere else. Of another encoding nothing is known here, so silence tells: no
event is under way where nothing came between two looks.
Source: k8s.io/apimachinery, pkg/runtime/serializer/json (framer), kube-apiserver's watch handler
"""

from __future__ import annotations

from tunnel.ports import Headers


class Events:
    """The stream of one watch, whose answer has these headers."""

    __slots__ = ("_lines", "whole")

    def __init__(self, headers: Headers) -> None:
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        self._lines = kind.partition(b";")[0].strip().lower() == b"application/json"
        self.whole = True
        """No event is under way, as far as it is known."""

    @property
    def cut(self) -> bool:
        """It is certain that one is."""
        return self._lines and not self.whole

    def take(self, data: bytes) -> None:
        """What was passed on."""
        self.whole = self._lines and data.endswith(b"\n")

    def look(self) -> bool:
        """Whether the watch may end now. To be called now and then, as long as it may not."""
        whole = self.whole
        self.whole = whole or not self._lines
        return whole
