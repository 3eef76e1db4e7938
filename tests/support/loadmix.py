"""Users of all kinds at once, through one address: what a rolling upgrade must not make any of them notice."""

from __future__ import annotations

import ssl
import time
from collections import Counter
from collections.abc import Sequence

from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.load import Asking, User
from tests.support.loadclient import Client
from tests.support.loadwatch import Watching
from tests.support.loadwrites import Writing

POD = "/api/v1/namespaces/default/pods/demo"


class Mix:
    """Readers that keep their connections, one that makes a new one each time, writers, watchers, and a watcher that
    asks the API server itself: who knows what has really happened.
    """

    def __init__(self, cluster: Cluster, url: str, tls: ssl.SSLContext, namespace: str) -> None:
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"
        paths = [POD, self._path]
        self.readers = [Asking(Client(url, tls), paths) for _ in range(4)]
        self.readers.append(Asking(Client(url, tls, fresh=True), paths, 0.05))
        self.writers = [Writing(Client(url, tls), namespace, f"write-{number}") for number in range(2)]
        selected = "labelSelector=load%3Dyes"
        self.watchers = [Watching(Client(url, tls), self._path, selected) for _ in range(3)]
        direct = ssl.create_default_context(cafile=str(cluster.ca_file))
        direct.load_cert_chain(cluster.files.admin.cert, cluster.files.admin.key)
        self.direct = Watching(Client(cluster.server, direct), self._path, selected)

    async def begin(self) -> None:
        """Where watchers begin: nothing is written yet."""
        for watcher in (*self.watchers, self.direct):
            await watcher.list()

    @property
    def users(self) -> Sequence[User]:
        """All but the watchers: these are stopped when they have seen everything."""
        return [*self.readers, *self.writers]

    @property
    def clients(self) -> list[Client]:
        """Of those who go through Kulvert."""
        reading, writing = [one.client for one in self.readers], [one.client for one in self.writers]
        return [*reading, *writing, *(one.client for one in self.watchers)]

    async def smooth(self, seconds: float, patience: float = 30.0) -> None:
        """Wait until all reads have gone well, and at once, for so long. Raises TimeoutError."""
        since = time.monotonic()

        async def well() -> bool:
            return all(one.served(since, seconds) for one in self.readers)

        await until(well, "reads to go well", patience)

    async def seen(self) -> None:
        """Wait until every watcher has come to where the cluster is now. Raises TimeoutError."""
        metadata = {"name": "last", "labels": {"load": "yes"}}
        last = await self._cluster.api.create(
            self._path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        )
        for watcher in (self.direct, *self.watchers):
            await watcher.until(last["metadata"]["resourceVersion"])

    # --- what they have to say

    def problems(self) -> list[str]:
        """Everything that somebody has noticed. Retries are counted apart."""
        found = [one.why for reader in self.readers for one in reader.failed()]
        found += [" ".join(one) for writer in self.writers for one in writer.failed]
        found += [one for writer in self.writers for one in writer.wrong(self._events(writer))]
        found += [f"a start of a watch: {why}" for one in self.watchers for why in one.refused]
        found += [f"a watch was cut: {why}" for one in self.watchers for why in one.cut]
        for number, one in enumerate(self.watchers):
            if one.events != self.direct.events:
                found.append(f"watcher {number} saw other events than the API server tells")
        return found

    def _events(self, writer: Writing) -> list[tuple[str, str]]:
        return [(one.kind, one.name) for one in self.direct.events if writer.owns(one.name)]

    def figures(self) -> dict[str, int]:
        """For people."""
        retries = Counter[str]()
        for client in self.clients:
            kinds = client.retries
            retries.update({"connect": kinds.connect, "stale": kinds.stale, "told": kinds.told})
        return {
            "reads": sum(len(one.outcomes) for one in self.readers),
            "slowest read, ms": round(1000 * max(one.seconds for reader in self.readers for one in reader.outcomes)),
            "made": sum(len(one.made) for one in self.writers),
            "deleted": sum(len(one.deleted) for one in self.writers),
            "events": len(self.direct.events),
            "watches that ended": sum(one.ended for one in self.watchers),
            "watches that were cut": sum(len(one.cut) for one in self.watchers),
            **{f"tried again: {kind}": count for kind, count in sorted(retries.items())},
        }
