"""The sink of an exchange whose owner has been told everything, or does not want to hear more."""

from __future__ import annotations

from tunnel.errors import ExchangeReset
from tunnel.ports import Headers


class Silent:
    """Both a `ResponseSink` and a `RequestSink`, and deaf."""

    def on_response(self, head: object) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_end(self, trailers: Headers) -> None: ...
    def on_reset(self, error: ExchangeReset) -> None: ...
    def on_writable(self) -> None: ...


SILENT = Silent()
"""It has no state, so one is enough."""
