"""A small Kubernetes client for these tests: a verb, a path, somebody to be, and the decoded answer."""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from cli.sample import SampleServer

PODS = "/api/v1/namespaces/default/pods"
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
Headers = tuple[tuple[str, str], ...]
ADMIN: Headers = (("Impersonate-User", "ada"), ("Impersonate-Group", "kulvert:admins"))
VIEWER: Headers = (("Impersonate-User", "vera"), ("Impersonate-Group", "kulvert:viewers"))
NOBODY: Headers = (("Impersonate-User", "bob"),)


@dataclass(frozen=True, slots=True)
class Client:
    session: aiohttp.ClientSession
    token: str | None
    user: Headers = ADMIN

    def to_be(self, user: Headers) -> Client:
        return replace(self, user=user)

    def headers(self, extra: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        token = [("Authorization", f"Bearer {self.token}")] if self.token else []
        return [*token, *self.user, *(extra or {}).items()]

    def raw(self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        return self.session.request(method, path, headers=self.headers(headers), **more)

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        if body is not None:
            named = {"Content-Type": "application/json"} | named
        data = None if body is None else io.BytesIO(json.dumps(body).encode())
        async with self.raw(method, path, named, data=data) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return response.status, json.loads(text) if is_json else text

    async def get(self, path: str, **headers: str) -> Any:
        status, body = await self.ask("GET", path, **headers)
        assert status == 200, body
        return body

    async def create(self, path: str, body: Any) -> Any:
        status, answer = await self.ask("POST", path, body)
        assert status == 201, answer
        return answer


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    async for line in response.content:
        yield json.loads(line)


@asynccontextmanager
async def connect(server: SampleServer, token: str | None = None, user: Headers = ADMIN) -> AsyncIterator[Client]:
    """A client of a server, with the agent's token or another."""
    context = ssl.create_default_context(cadata=server.ca_pem.decode())
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(server.url, connector=connector) as session:
        yield Client(session, token or server.token, user)


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app": name}}, "data": data}
