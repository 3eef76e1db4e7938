"""A user who makes small ConfigMaps and deletes them, and knows of each what became of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence

from tests.support.loadclient import Client, Failed


class Writing:
    """Makes `NAME-1`, deletes it, makes `NAME-2`, … in one namespace."""

    def __init__(self, client: Client, namespace: str, name: str, every: float = 0.05) -> None:
        self.client = client
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"
        self._name = name
        self._every = every
        self._stopped = False
        self.made: list[str] = []
        self.deleted: list[str] = []
        self.failed: list[tuple[str, str, str]] = []
        """(method, name, why): it may have happened or not, and its user knows that he does not know."""

    async def run(self) -> None:
        """Until `stop`."""
        number = 0
        try:
            while not self._stopped:
                number += 1
                await self._one(f"{self._name}-{number}")
                await asyncio.sleep(self._every)
        finally:
            self.client.close()

    def stop(self) -> None:
        """After the object that is under way."""
        self._stopped = True

    async def _one(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"load": "yes"}}}
        if await self._ask("POST", name, self._path, 201, json.dumps(body).encode()):
            self.made.append(name)
            await asyncio.sleep(self._every)
            if await self._ask("DELETE", name, f"{self._path}/{name}", 200):
                self.deleted.append(name)

    async def _ask(self, method: str, name: str, path: str, expected: int, body: bytes = b"") -> bool:
        try:
            answer = await self.client.ask(method, path, body)
        except Failed as failed:
            self.failed.append((method, name, str(failed)))
            return False
        if answer.status != expected:
            self.failed.append((method, name, f"{answer.status}: {answer.body[:300].decode(errors='replace')}"))
        return answer.status == expected

    def owns(self, name: str) -> bool:
        """Whether the object is one of this user's."""
        return name.startswith(f"{self._name}-")

    def wrong(self, events: Sequence[tuple[str, str]]) -> list[str]:
        """What the API server's own story of its objects, (type of event, name), contradicts."""
        found = Counter(events)
        problems = [f"{one} happened {count} times" for one, count in found.items() if count > 1]
        problems += [f"{name} was not made" for name in self.made if not found["ADDED", name]]
        problems += [f"{name} was not deleted" for name in self.deleted if not found["DELETED", name]]
        return problems
