"""A small hub for `benchmarks.scale`: lists ManagedClusters in pages, and has some of them change every second.

python -m benchmarks.scale_hub PORT COUNT
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from typing import Any

import orjson
import uvloop
from aiohttp import web

from benchmarks.scale_scene import cluster_id, cluster_name
from gateway.hub.clusters import SOURCE

A_SECOND = 100
"""Objects that change: each of 10,000 clusters' status every 100 s."""


def managed_cluster(number: int, version: int) -> dict[str, Any]:
    """As a hub with Open Cluster Management has it, with the book-keeping that an API server adds."""
    name = cluster_name(number)
    condition = {"status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "as it should be"}
    keys = ("labels", "annotations", "spec", "status", "conditions", "capacity")
    fields: dict[str, dict[str, str]] = {f"f:{key}": {} for key in keys}
    return {
        "apiVersion": "cluster.open-cluster-management.io/v1",
        "kind": "ManagedCluster",
        "metadata": {
            "name": name,
            "uid": str(uuid.UUID(int=number)),
            "resourceVersion": str(version),
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "env": "production",
                "region": "eu-west-1",
                "team": "platform",
                "cluster-id": cluster_id(number),
            },
            "managedFields": [
                {"manager": m, "operation": "Update", "fieldsV1": fields} for m in ("kubectl", "hub", "agent")
            ],
        },
        "spec": {"hubAcceptsClient": True, "leaseDurationSeconds": 60},
        "status": {
            "allocatable": {"cpu": "64", "memory": f"{version}Ki"},
            "capacity": {"cpu": "64", "memory": "263921568Ki"},
            "conditions": [condition | {"type": one, "reason": one} for one in ("HubAccepted", "Joined", "Available")],
            "version": {"kubernetes": "v1.36.3"},
        },
    }


class Hub:
    """One collection. Objects change in turn, for as long as anybody watches."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._version = count
        self._objects = [orjson.dumps(managed_cluster(number, number + 1)) for number in range(count)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A list or a watch."""
        return await self._watch(request) if "watch" in request.query else self._list(request)

    def _list(self, request: web.Request) -> web.Response:
        begin, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", self._count))
        end = min(begin + limit, self._count)
        more = str(end) if end < self._count else ""
        head = b'{"kind":"ManagedClusterList","metadata":{"resourceVersion":"%d","continue":"%s"},"items":['
        items = b",".join(self._objects[begin:end])
        body = head % (self._version, more.encode()) + items + b"]}"
        return web.Response(body=body, content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await asyncio.sleep(1.0)
            await response.write(b"".join(self._event() for _ in range(min(A_SECOND, self._count))))

    def _event(self) -> bytes:
        self._version += 1
        number = self._version % self._count
        self._objects[number] = orjson.dumps(managed_cluster(number, self._version))
        return b'{"type":"MODIFIED","object":' + self._objects[number] + b"}\n"


async def _main(port: int, count: int) -> None:
    app = web.Application()
    app.router.add_get(SOURCE.path, Hub(count).answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2])))
