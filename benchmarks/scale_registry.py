"""What many records cost the server without agents: its SQLite registry, and the informer on the hub's ManagedClusters.

Each is measured in a process of its own (`python -m benchmarks.scale_registry registry|informer …`), whose growth is
that of its memory from just before it reads until it has read everything.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from timeit import timeit

import orjson
import uvloop
from kubernetes_asyncio import client

from benchmarks.scale_scene import cluster_name, register
from gateway.hub.clusters import SOURCE, Declared, declared
from gateway.hub.informer import Informer
from gateway.membership.stores import Stores
from tests.support.platform import Usage
from tests.support.processes import bound_to_us

LOOKUPS = 200_000
CHANGES = 5.0
"""Seconds for which the hub's objects change, some every second."""


@dataclass(frozen=True, slots=True)
class Records:
    """Seconds to read all of `count`, bytes that each takes, nanoseconds of a lookup, µs of CPU for a change."""

    store: str
    count: int
    seconds: float
    bytes_each: float
    lookup_ns: float
    change_us: float = 0.0


async def measure(kind: str, count: int, where: str) -> Records:
    """In a process of its own. `where` is a directory for the registry, a hub's address for the informer."""
    argv = bound_to_us([sys.executable, "-m", "benchmarks.scale_registry", kind, where, str(count)])
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return Records(**orjson.loads(out))


def _registry(directory: Path, count: int) -> Records:
    path = directory / f"{count}.db"
    register(path, range(count), time.time())
    before, began = _rss(), time.perf_counter()
    stores = Stores.open(path)
    seconds, grown = time.perf_counter() - began, _rss() - before
    ns = _lookup(stores.registry.get, count)
    stores.close()
    return Records("registry (SQLite)", count, seconds, grown / count, ns)


async def _informer(url: str, count: int) -> Records:
    async with client.ApiClient(client.Configuration(host=url)) as api:
        informer: Informer[Declared] = Informer(api, SOURCE, declared, random.random)
        before, began = _rss(), time.perf_counter()
        run = asyncio.create_task(informer.run(), name="informer")
        async with asyncio.timeout(60):
            await informer.synced.wait()
        seconds = time.perf_counter() - began
        gc.collect()
        grown = _rss() - before
        assert len(informer.items) == count, f"{len(informer.items)} of {count}"
        changed = [0]
        informer.subscribe(lambda deltas: changed.__setitem__(0, changed[0] + len(deltas)))
        changed[0] = 0
        cpu = time.process_time()
        await asyncio.sleep(CHANGES)
        cpu = time.process_time() - cpu
        ns = _lookup(informer.items.get, count)
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
    return Records("informer (hub)", count, seconds, grown / count, ns, 1e6 * cpu / max(1, changed[0]))


def _lookup(get: Callable[[str], object], count: int) -> float:
    """Of names in no order, which are not in the processor's cache."""
    names = [cluster_name(number) for number in random.sample(range(count), min(count, 5_000))]
    found = iter(names * (LOOKUPS // len(names) + 1))
    return 1e9 * timeit(lambda: get(next(found)), number=LOOKUPS) / LOOKUPS


def _rss() -> int:
    gc.collect()
    return Usage.of(os.getpid()).rss


def main() -> None:
    """Prints the figures as JSON."""
    kind, where, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    found = _registry(Path(where), count) if kind == "registry" else uvloop.run(_informer(where, count))
    print(orjson.dumps(asdict(found)).decode())


if __name__ == "__main__":
    main()
