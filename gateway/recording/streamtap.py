"""The seam between a hijacked stream and whoever looks on: gateway.hijack and gateway.connection show it a copy of
each piece before that goes on.

Passages without a tap pay nothing for it, but for a look at an attribute when they switch protocols and end.
"""

from __future__ import annotations

from typing import Protocol

from tunnel.ports import ResponseBlock


class TapFailed(Exception):
    """The stream must not go on unseen; the text says why."""


class StreamTap(Protocol):
    """Who looks on. `name` is for the audit record."""

    @property
    def name(self) -> str: ...

    def begin(self, head: ResponseBlock) -> None:
        """The 101 is about to go to the client. Raises HeadError where the stream must not begin."""

    def from_cluster(self, data: bytes) -> None:
        """The cluster's bytes. Raises TapFailed."""

    def from_client(self, data: bytes) -> None:
        """The client's bytes. Raises TapFailed."""

    def end(self) -> None:
        """The passage is over, whether it ever switched or not. Never raises."""
