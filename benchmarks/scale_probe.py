"""One user who asks again and again, whatever the answer, for `benchmarks.scale`: how long each took, and how many were
no 200.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.load import Target

PAUSE = 0.005
"""Seconds between two questions."""


@dataclass(slots=True)
class Probe:
    """`run` until it is cancelled."""

    target: Target
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answer, of any status."""
    failed: int = 0

    def percentile(self, share: float) -> float:
        """The latency that `share` of the answers stayed within."""
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]

    async def last(self, seconds: float) -> Probe:
        """Run for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.run()
        return self

    async def run(self) -> None:
        """Asks over one connection, and over another one where that has ended."""
        while True:
            try:
                await self._ask()
            except (OSError, ssl.SSLError, EOFError):
                await asyncio.sleep(PAUSE)

    async def _ask(self) -> None:
        parts = urlsplit(self.target.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=self.target.tls)
        try:
            for text in self.target.requests():
                began = time.monotonic()
                writer.write(text)
                head = await reader.readuntil(b"\r\n\r\n")
                self.latencies.append(time.monotonic() - began)
                self.failed += not head.startswith(b"HTTP/1.1 200 ")
                await reader.readexactly(_length(head))
                await asyncio.sleep(PAUSE)
        finally:
            writer.transport.abort()


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0])
