"""`python -m benchmarks.workers`: GETs through a server of one process, and through one of several workers.

Two clusters, with an agent each, that belong to different workers; half of all requests come to a worker that does not
have their cluster. The CPU of every process tells what bounds the rate: on a machine whose cores the load driver, the
agents and the API server use up with one worker, a second one has none left to use, and only costs its hop.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import PATH, WARM_UP, user_tls
from benchmarks.load import Target, run
from benchmarks.upstreams import Upstream, static
from gateway.workers.boot import name_of
from stub.assigned import Assigned
from stub.ownership import Replica
from tests.support.platform import Platform, Usage


@dataclass(frozen=True, slots=True)
class Row:
    """CPU is in µs a request, `busy` the share of the machine that all of it took."""

    workers: int
    p50: float
    p99: float
    rate: float
    cpu: Mapping[str, float]
    busy: float


@click.command()
@click.option("--workers", "counts", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option("--connections", default=32, show_default=True)
@click.option("--requests", default=8_000, show_default=True, help="GETs in each measurement.")
def main(counts: tuple[int, ...], connections: int, requests: int) -> None:
    """What several workers bring, and what they cost."""
    rows = uvloop.run(_all(counts, connections, requests))
    console = Console(width=160)
    console.print(_table(rows))
    console.print(f"{os.cpu_count()} cores, shared by all of these; the load driver is one process")


async def _all(counts: tuple[int, ...], connections: int, requests: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        async with static(Path(directory)) as upstream:
            return [await _measured(Path(directory), upstream, count, connections, requests) for count in counts]


async def _measured(at: Path, upstream: Upstream, count: int, connections: int, requests: int) -> Row:
    names = owned(count)
    async with Platform(at / f"platform-{count}", settings={"workers": count}) as platform:
        for name in names:
            await platform.attach(name, upstream.kubeconfig)
        target = Target(platform.url, user_tls(platform), paths=[f"/clusters/{name}{PATH}" for name in names])
        pids = _pids(platform, names)
        await run(target, connections, WARM_UP)
        before: dict[str, float] = {}
        began = time.monotonic()
        result = await run(target, connections, requests, lambda: before.update(_used(pids)))
        took, after = time.monotonic() - began, _used(pids)
    cpu = {name: 1e6 * (after[name] - before[name]) / requests for name in after}
    busy = sum(after[name] - before[name] for name in after) / took / (os.cpu_count() or 1)
    return Row(count, 1e6 * result.percentile(0.5), 1e6 * result.percentile(0.99), result.rate, cpu, busy)


def owned(count: int) -> list[str]:
    """Two clusters' names: of the first worker, and of the last."""
    workers = tuple(Replica(name_of(number), "") for number in range(count))
    assigned = Assigned(workers, workers[0].identity, 1)
    named = [f"cluster-{number}" for number in range(1_000)]
    first = next(name for name in named if assigned.owner(name) == name_of(0))
    return [first, next(name for name in named if assigned.owner(name) == name_of(count - 1) and name != first)]


def _pids(platform: Platform, names: list[str]) -> dict[str, int]:
    found = {"server" if platform.settings["workers"] == 1 else "parent": platform.server().pid}
    for line in platform.server_log.read_text().splitlines():
        said = orjson.loads(line) if line.startswith("{") else {}
        if said.get("event") == "a worker begins":
            found[name_of(said["worker"])] = said["pid"]
    return found | {f"agent {number}": platform.agent(name).pid for number, name in enumerate(names)}


def _used(pids: Mapping[str, int]) -> dict[str, float]:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return {name: Usage.of(pid).cpu for name, pid in pids.items()} | {"driver": own.ru_utime + own.ru_stime}


def _table(rows: list[Row]) -> Table:
    table = Table(title="GET of one Pod of two clusters in turn")
    for column in ("workers", "p50", "p99", "req/s", "busy", "CPU µs a request"):
        table.add_column(column, justify="left" if column.startswith("CPU") else "right")
    for row in rows:
        cpu = ", ".join(f"{name} {used:.0f}" for name, used in row.cpu.items())
        times = (f"{row.p50:.0f} µs", f"{row.p99:.0f} µs", f"{row.rate:.0f}", f"{100 * row.busy:.0f} %")
        table.add_row(str(row.workers), *times, cpu)
    return table


if __name__ == "__main__":
    main()
