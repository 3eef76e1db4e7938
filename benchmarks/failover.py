"""What a user waits for when something is killed: the holder of the Lease, the owner of a shard, an agent.

    python -m benchmarks.failover --rounds 20 --json failover.json

Real processes: three replicas of `kulvert serve`, the agents of one cluster, that cluster's kube-apiserver, and another
one as the hub. In each round one of them ends while users read every 20 ms, over connections that they keep: through a
replica that stays, and through a balancer as a Service is one. The unavailable time is the longest time without a
success from the kill on: what waits at the gateway and then succeeds counts in full. A round begins when all is well
again. It ends with 1 where a figure is beyond its bar.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import orjson
import uvloop
from rich.console import Console

from benchmarks.failover_report import Report, Round
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import bind, create_pod
from tests.support.installation import Installation
from tests.support.load import Asking, under_load
from tests.support.loadclient import Client
from tests.testbed.place import locate

POD = "/api/v1/namespaces/default/pods/demo"
PODS = "/api/v1/namespaces/default/pods"
QUICK = {"duration": 4, "renewDeadline": 3, "retryPeriod": 0.5}
CLIENT_GO = {"duration": 15, "renewDeadline": 10, "retryPeriod": 2}
SMOOTH = 2.0
"""Seconds for which everything has to be well before the next round."""
STABLE = 11.0
"""Seconds between two rounds: an agent whose sessions last less than 10 s again and again takes its time."""
SHUTDOWN = 3.0
CROWD = 16
SCENES = ("standby", "clean", "shard", "agent")


@click.command()
@click.option("--rounds", default=20, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(SCENES), default=SCENES)
@click.option("--quick", is_flag=True, help="A leader's Lease of 4/3/0.5 s instead of client-go's 15/10/2.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the logs in this directory.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here too.")
def main(rounds: int, only: tuple[str, ...], quick: bool, keep: Path | None, path: Path | None) -> None:
    """The unavailable time after a kill -9 and after an orderly end."""
    report = uvloop.run(_measured(rounds, only, QUICK if quick else CLIENT_GO, keep))
    report.show(Console(width=150))
    if path:
        path.write_bytes(orjson.dumps(report.document(), option=orjson.OPT_INDENT_2))
    sys.exit(0 if report.passed else 1)


async def _measured(rounds: int, only: tuple[str, ...], leases: Mapping[str, Any], keep: Path | None) -> Report:
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        directory = keep or Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        async with (
            Cluster("hub", locate(os.environ), directory) as hub,
            Cluster("alpha", locate(os.environ), directory) as alpha,
        ):
            await bind(alpha, "cluster-admin", group="kulvert:admins")
            await create_pod(alpha, "demo")
            if {"standby", "clean"} & set(only):
                await _standby(report, directory, hub, alpha, rounds, only, leases)
            if {"shard", "clean", "agent"} & set(only):
                await _sharded(report, directory, hub, alpha, rounds, only)
    return report


async def _standby(
    report: Report, directory: Path, hub: Cluster, alpha: Cluster, rounds: int, only: tuple[str, ...],
    leases: Mapping[str, Any],
) -> None:  # fmt: skip
    async with _scene(directory / "standby", hub, alpha, "standby", leases) as scene:
        if "standby" in only:
            name, bar = "holder of the Lease, kill -9", float(leases["duration"]) + 2.0
            await scene.measure(report, name, bar, rounds, scene.kill_holder)
        if "clean" in only:
            await scene.measure(report, "holder of the Lease, SIGTERM", SHUTDOWN, rounds, scene.end_holder)


async def _sharded(
    report: Report, directory: Path, hub: Cluster, alpha: Cluster, rounds: int, only: tuple[str, ...]
) -> None:
    async with _scene(directory / "sharded", hub, alpha, "sharded", {}) as scene:
        if "shard" in only:
            await scene.measure(report, "owner of a shard, kill -9", 5.0, rounds, scene.kill_holder)
        if "clean" in only:
            await scene.measure(report, "owner of a shard, SIGTERM", SHUTDOWN, rounds, scene.end_holder)
        if "agent" in only:
            await scene.agents(report, rounds)


@asynccontextmanager
async def _scene(
    directory: Path, hub: Cluster, alpha: Cluster, mode: str, leases: Mapping[str, Any]
) -> AsyncIterator[Scene]:
    click.echo(f"{mode}: starting", err=True)
    await hub.kubectl("delete", "namespace", "kulvert-hub", "--wait", timeout=60)
    settings = {"timeouts": {"drain": 5}}
    async with Installation(directory, hub, mode, leases=leases, settings=settings) as made:
        await made.start_agent(alpha)
        await made.further_agents("alpha", 1)
        yield Scene(made)


class Scene:
    """Three replicas, a cluster with two agents, and what may happen to them."""

    def __init__(self, made: Installation) -> None:
        self._made = made
        self._tls = made.tls()
        self._since = time.monotonic()

    async def measure(
        self, report: Report, name: str, bar: float, rounds: int, end: Callable[[str], Awaitable[None]]
    ) -> None:
        """`end` ends a replica, the holder of the cluster's agents."""
        series = report.series(name, bar)
        for number in range(rounds):
            series.add(await self._round(end))
            click.echo(f"{name}: {number + 1}: {series.rounds[-1].text}", err=True)

    async def _round(self, end: Callable[[str], Awaitable[None]]) -> Round:
        made, holder = self._made, await self._settled()
        other = next(name for name in made.replicas if name != holder)
        direct = [self._user(f"{made.replica_url(other, 'alpha')}") for _ in range(2)]
        balanced = [self._user(f"{made.url}/clusters/alpha") for _ in range(2)]
        users = direct + balanced

        async def well() -> bool:
            return all(one.served(began, SMOOTH) for one in users)

        async with under_load(users):
            began = time.monotonic()
            await until(well, "users to be served", 60.0)
            await asyncio.sleep(max(0.0, self._since + STABLE - time.monotonic()))
            await asyncio.sleep(2 * random.random())  # anywhere between two renewals
            began = time.monotonic()
            ending = asyncio.ensure_future(end(holder))
            await asyncio.sleep(0.1)
            await until(well, "users to be served again", 120.0)
            self._since = time.monotonic()
            await ending
        await made.replicas[holder].start_server()
        return Round.of(began, direct, balanced)

    async def _settled(self) -> str:
        """Everybody is there; gives the cluster's holder."""
        made = self._made

        async def all_there() -> str:
            leases = [await made.lease(f"kulvert-replica-{name}") for name in made.replicas]
            alive = all(lease.get("holderIdentity") for lease in leases)
            return await made.owner("alpha") if alive else ""

        return await until(all_there, "every replica to have its Lease", 60.0)

    def _user(self, url: str) -> Asking:
        return Asking(Client(url, self._tls), [POD])

    async def kill_holder(self, name: str) -> None:
        """As a machine that loses its power would end it."""
        await self._made.kill(name)

    async def end_holder(self, name: str) -> None:
        """As a rollout does."""
        await self._made.replicas[name].stop_server()

    # --- agents

    async def agents(self, report: Report, rounds: int) -> None:
        """One of two is killed, while many users get and list."""
        series = report.series("one of two agents, kill -9", 0.0, failures=True)
        first = self._made.first
        names = ["alpha", "alpha-2"]
        for number in range(rounds):
            name = names[number % 2]
            series.add(await self._agent_round(name, names[1 - number % 2]))
            click.echo(f"agent: {number + 1}: {series.rounds[-1].text}", err=True)
            await first.restart_agent(name)

    async def _agent_round(self, name: str, other: str) -> Round:
        made = self._made
        await self._settled()
        targets = [made.url, *(one.url for one in made.replicas.values())]
        clients = [Client(f"{targets[n % len(targets)]}/clusters/alpha", self._tls) for n in range(CROWD)]
        users = [Asking(client, [POD, PODS], 0.0) for client in clients]

        async def well() -> bool:
            return all(one.served(began, 1.0) for one in users)

        async with under_load(users):
            began = time.monotonic()
            await until(well, "users to be served", 60.0)
            began = time.monotonic()
            await made.first.stop_agent(name, signal.SIGKILL)
            await until(well, f"{other} to serve alone", 60.0)
        return Round.of(began, [], users)


if __name__ == "__main__":
    main()
