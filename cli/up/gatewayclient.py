"""The check's own client: it speaks to the gateway by the kubeconfig that the user gets, and by nothing else."""

from __future__ import annotations

import base64
import os
import ssl
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import aiohttp

from cli.kubeconfigfile import Entry

Object = dict[str, Any]
TIMEOUT = 10.0


class GatewayClient:
    """An async context manager. With `anonymous`, no certificate is shown."""

    def __init__(self, entry: Entry, *, anonymous: bool = False) -> None:
        self._entry = entry
        self._context = _context(entry, with_certificate=not anonymous)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._context)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of a path of the cluster."""
        async with self._open.get(self._entry.server + path) as answer:
            return answer.status, await answer.text()

    async def json(self, method: str, path: str, body: Object | None = None) -> tuple[int, Object]:
        """Status and object of a path of the cluster."""
        async with self._open.request(method, self._entry.server + path, json=body) as answer:
            return answer.status, await answer.json()

    async def clusters(self) -> list[Object]:
        """The gateway's own list of what the user may reach."""
        origin = self._entry.server.partition("/clusters/")[0]
        async with self._open.get(f"{origin}/apis/kulvert.dev/v1alpha1/clusters") as answer:
            answer.raise_for_status()
            items: list[Object] = (await answer.json())["items"]
            return items

    async def websocket(self, path: str, protocol: str) -> list[bytes]:
        """All messages of a stream that the other end closes."""
        async with self._open.ws_connect(self._entry.server + path, protocols=(protocol,)) as stream:
            return [message.data async for message in stream if message.type is aiohttp.WSMsgType.BINARY]

    @property
    def _open(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session


def _context(entry: Entry, *, with_certificate: bool) -> ssl.SSLContext:
    """ssl reads certificates from files only: one that nobody else can read, for as long as it takes."""
    context = ssl.create_default_context(cadata=entry.ca_pem.decode())
    if with_certificate:
        pair = [base64.b64decode(entry.credentials[key]) for key in ("client-certificate-data", "client-key-data")]
        with TemporaryDirectory(prefix="kulvert-up-") as directory:
            file = Path(directory, "client.pem")
            file.touch(mode=0o600)
            file.write_bytes(os.linesep.encode().join(pair))
            context.load_cert_chain(file)
    return context
