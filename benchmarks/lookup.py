"""What an informer saves: one GET with a lookup at the hub's API for each request, with the informer, and direct.

    python -m benchmarks.lookup

All ways are measured in turn in one run, against a real kube-apiserver, with another one as the hub. The lookup is done
once with an idle hub, and once through a client that is throttled as client-go's is by default (5 queries a second,
bursts of 10) while 20 users ask: that is where published figures of 95 % come from.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import PATH, user_tls
from benchmarks.load import Target, run
from benchmarks.lookup_server import BURST, KUBECONFIG, QPS
from benchmarks.upstreams import Floor, Upstream, floor, testbed
from tests.support.cluster import Cluster
from tests.support.platform import Platform
from tests.testbed.place import locate

USERS = 20
CHARTS = Path(__file__).parents[1] / "charts"
CUT_BAR, DIRECT_BAR = 0.95, 1.3
CLUSTER = {
    "apiVersion": "cluster.open-cluster-management.io/v1",
    "kind": "ManagedCluster",
    "metadata": {"name": "testbed"},
    "spec": {"hubAcceptsClient": True},
}


@dataclass(frozen=True, slots=True)
class Found:
    """Medians of one GET's whole round trip, µs; `…_users` with 20 users at once, `cut` the share that is saved."""

    direct: float
    floor: float
    informer: float
    lookup: float
    informer_users: float
    throttled_users: float

    @property
    def cut_throttled(self) -> float:
        """Of the whole round trip, with a throttled client and 20 users."""
        return 1 - self.informer_users / self.throttled_users

    @property
    def cut_idle(self) -> float:
        """Of what the lookup adds, with an idle hub: what the informer's own lookup costs is below the noise of a round
        trip, and is measured by itself.
        """
        return 1 - lookup_cost() / (self.lookup - self.informer)

    @property
    def to_direct(self) -> float:
        """Through the gateway, to the direct way with impersonation."""
        return self.informer / self.direct

    @property
    def missed(self) -> list[str]:
        """The bars that were not met."""
        cuts = {"under the throttle": self.cut_throttled, "with an idle hub": self.cut_idle}
        missed = [name for name, cut in cuts.items() if cut < CUT_BAR]
        return missed if self.to_direct <= DIRECT_BAR else [*missed, "informer to direct"]


def lookup_cost(times: int = 200_000) -> float:
    """µs of one lookup among 10,000 clusters, as the pipeline does it."""
    from timeit import timeit

    from gateway.membership.cluster import Cluster as Record

    known = {f"cluster-{number}": Record(f"cluster-{number}", "uid") for number in range(10_000)}
    return 1e6 * timeit(lambda: known.get("cluster-77"), number=times) / times


@click.command()
@click.option("--rounds", default=12, show_default=True, help="Each way is measured so many times, in turn.")
@click.option("--requests", default=300, show_default=True, help="GETs of each way in a round.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here too.")
def main(rounds: int, requests: int, path: Path | None) -> None:
    """A GET with a lookup at the hub, with the informer, and direct."""
    found = uvloop.run(_all(rounds, requests))
    Console(width=140).print(_table(found))
    if path:
        more = {"cut_throttled": found.cut_throttled, "cut_idle": found.cut_idle, "to_direct": found.to_direct}
        path.write_text(json.dumps(asdict(found) | more, indent=1))
    if found.missed:
        click.echo(f"not met: {', '.join(found.missed)}", err=True)
        sys.exit(1)


async def _all(rounds: int, requests: int) -> Found:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (directory / "up").mkdir()
        hub = await stack.enter_async_context(_hub(directory))
        upstream = await stack.enter_async_context(testbed(directory / "up"))
        least = await stack.enter_async_context(floor(upstream, directory))
        names = ("informer", "lookup", "throttled")
        ways = {name: await stack.enter_async_context(_platform(directory, name, hub, upstream)) for name in names}
        return await _measured(rounds, requests, upstream, least, {name: _target(one) for name, one in ways.items()})


async def _measured(rounds: int, requests: int, upstream: Upstream, least: Floor, ways: dict[str, Target]) -> Found:
    alone = {
        "direct": Target(upstream.url, upstream.tls, upstream.headers),
        "floor": Target(least.url, least.tls, upstream.headers),
        "informer": ways["informer"],
        "lookup": ways["lookup"],
    }
    medians: dict[str, list[float]] = {name: [] for name in alone}
    for number in range(rounds + 1):
        for name, target in alone.items():
            result = await run(target, 1, requests)
            if number:  # the first is to warm up
                medians[name].append(1e6 * result.percentile(0.5))
    users = await run(ways["informer"], USERS, 100 * USERS)
    throttled = await run(ways["throttled"], USERS, 5 * USERS)
    figures = {name: median(found) for name, found in medians.items()}
    return Found(**figures, informer_users=1e6 * users.percentile(0.5), throttled_users=1e6 * throttled.percentile(0.5))


@asynccontextmanager
async def _hub(directory: Path) -> AsyncIterator[Cluster]:
    async with Cluster("hub", locate(os.environ), directory) as hub:
        (await hub.kubectl("apply", "--server-side", "-f", CHARTS / "crds-without-ocm")).check()
        crd = "crd/managedclusters.cluster.open-cluster-management.io"
        (await hub.kubectl("wait", "--for=condition=Established", crd, "--timeout=20s")).check()
        (await hub.kubectl("apply", "-f", "-", input=json.dumps(CLUSTER).encode())).check()
        yield hub


@asynccontextmanager
async def _platform(directory: Path, name: str, hub: Cluster, upstream: Upstream) -> AsyncIterator[Platform]:
    """The product, or the same with a lookup for each request; each with an agent of its own."""
    env = {KUBECONFIG: str(hub.admin_kubeconfig), "PYTHONPATH": str(Path(__file__).parents[1])}
    if name == "throttled":
        env |= {QPS: "5", BURST: "10"}
    settings, program = {}, [sys.executable, "-m", "benchmarks.lookup_server"]
    if name == "informer":
        settings = {"hub": {"kubeconfig": str(hub.admin_kubeconfig)}}
        program = [str(Path(sys.executable).parent / "kulvert")]
    async with Platform(directory / name, env=env, settings=settings, program=program) as platform:
        await platform.attach("testbed", upstream.kubeconfig)
        yield platform


def _target(platform: Platform) -> Target:
    return Target(f"{platform.url}/clusters/testbed{PATH}", user_tls(platform))


def _table(found: Found) -> Table:
    table = Table(title="One GET of a Pod, whole round trip (medians)")
    for column in ("way", "µs", "to direct"):
        table.add_column(column, justify="left" if column == "way" else "right")
    rows = {
        "direct, with impersonation": found.direct,
        "two bare TLS splices in a row (the floor)": found.floor,
        "gateway, informer": found.informer,
        "gateway, lookup at an idle hub": found.lookup,
        f"gateway, informer, {USERS} users": found.informer_users,
        f"gateway, lookup throttled to 5/s, {USERS} users": found.throttled_users,
    }
    for name, value in rows.items():
        table.add_row(name, f"{value:.0f}", f"× {value / found.direct:.2f}")
    table.caption = (
        f"whole round trip under the throttle: cut by {found.cut_throttled:.2%} (bar {CUT_BAR:.0%})\n"
        f"the lookup's share with an idle hub: cut by {found.cut_idle:.2%} (bar {CUT_BAR:.0%})\n"
        f"informer to direct: × {found.to_direct:.2f} (bar × {DIRECT_BAR}), floor × {found.floor / found.direct:.2f}"
    )
    return table


if __name__ == "__main__":
    main()
