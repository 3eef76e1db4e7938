"""Releases of the charts, made by a helm that reaches its cluster through the gateway alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.charts.helm import Helm
from tests.support.binding import scheduling
from tests.support.cluster import Cluster

OCM = "managedclusters.cluster.open-cluster-management.io"
CRDS = ("grants.kulvert.dev", OCM)
STRICTEST = "pod-security.kubernetes.io/enforce=restricted"


class Release:
    """One release in a namespace of its own, by a helm that reaches its cluster through the gateway alone."""

    def __init__(self, helm: Helm, cluster: Cluster, kubeconfig: Path, namespace: str) -> None:
        self._helm = helm
        self._kubeconfig = kubeconfig
        self.cluster = cluster
        self.namespace = namespace

    async def helm(self, *args: str | Path, fails: bool = False) -> str:
        """stdout; or stderr of what has to fail."""
        where: tuple[str | Path, ...] = ("--kubeconfig", self._kubeconfig, "--namespace", self.namespace)
        done = await asyncio.to_thread(self._helm.run, *args, *where, timeout=90)
        assert (done.returncode != 0) is fails, f"{args}\n{done.stdout}\n{done.stderr}"
        return done.stderr if fails else done.stdout

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object, as the cluster itself has it; empty where there is none."""
        where = ("-n", self.namespace, "--ignore-not-found", "-o", "json")
        found = (await self.cluster.kubectl("get", kind, name, *where)).check().out
        return dict(json.loads(found)) if found else {}

    async def objects(self) -> set[str]:
        """All objects of the whole cluster that are of the charts, but for the pods and what belongs to them."""
        kinds = (await self.cluster.kubectl("api-resources", "--verbs=list", "-o", "name")).check().out.split()
        followers = ("pods", "replicasets", "endpoint", "events", "pods.metrics", "bindings")
        wanted = [kind for kind in kinds if not kind.startswith(followers)]
        found = await self.cluster.kubectl(
            "get", ",".join(wanted), "-A", "-l", "app.kubernetes.io/part-of=kulvert", "-o", "name", "--ignore-not-found"
        )
        return set(found.check().out.split())


@asynccontextmanager
async def releasing(helm: Helm, cluster: Cluster, kubeconfig: Path, name: str) -> AsyncIterator[Release]:
    """A namespace for a release, whose pods come up; it goes with all CRDs that have come meanwhile."""
    namespace = f"charts-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    before = await crds(cluster)
    (await cluster.kubectl("create", "namespace", namespace)).check()
    (await cluster.kubectl("label", "namespace", namespace, STRICTEST)).check()
    try:
        async with scheduling(cluster, namespace):
            yield Release(helm, cluster, kubeconfig, namespace)
    finally:
        (await cluster.kubectl("delete", "namespace", namespace, "--wait=false")).check()
        if new := await crds(cluster) - before:
            (await cluster.kubectl("delete", "crd", *new)).check()


async def crds(cluster: Cluster) -> set[str]:
    found = await cluster.kubectl("get", "crd", "--ignore-not-found", "-o", "jsonpath={.items[*].metadata.name}")
    return set(found.check().out.split()) & set(CRDS)
