"""A scheduler's one act: pods that have no node get the test bed's, so that kwok can bring them up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from tests.support.cluster import Cluster
from tests.support.cluster_api import ApiError
from tests.support.cluster_objects import NODE

LOOK = 0.2


@asynccontextmanager
async def scheduling(cluster: Cluster, namespace: str) -> AsyncIterator[None]:
    """Binds the pods of a namespace, for as long as it lasts."""
    task = asyncio.create_task(_bind_all(cluster, namespace), name=f"bind pods of {namespace}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _bind_all(cluster: Cluster, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
    while True:
        for pod in (await cluster.api.get(pods))["items"]:
            if not pod["spec"].get("nodeName"):
                name = pod["metadata"]["name"]
                binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
                try:
                    await cluster.api.request("POST", f"{pods}/{name}/binding", binding)
                except ApiError as error:
                    if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):  # it went meanwhile
                        raise
        await asyncio.sleep(LOOK)
