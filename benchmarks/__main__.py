"""`make bench`: GETs of one Pod through the gateway against the direct way, in one run.

The direct way impersonates too, with the agent's own credential: it is the same work for the API server. CPU is that of
the server's and the agent's processes, from /proc, which is far steadier than time on a busy machine.
"""

from __future__ import annotations

import json
import ssl
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.load import Result, Target, run
from benchmarks.upstreams import UPSTREAMS, Upstream
from tests.support.platform import Platform, Usage

PATH = "/api/v1/namespaces/default/pods/demo"
WARM_UP = 500


@dataclass(frozen=True, slots=True)
class Row:
    """One upstream at one number of connections. Times are µs, rates requests a second, CPU µs a request."""

    upstream: str
    connections: int
    direct_p50: float
    gateway_p50: float
    direct_p99: float
    gateway_p99: float
    direct_rate: float
    gateway_rate: float
    server_cpu: float
    agent_cpu: float

    @property
    def p50_ratio(self) -> float:
        """Gateway to direct; 1 is no cost at all."""
        return self.gateway_p50 / self.direct_p50

    @property
    def rate_ratio(self) -> float:
        """Gateway to direct; 1 is no cost at all."""
        return self.gateway_rate / self.direct_rate


@click.command()
@click.option("--upstream", "names", multiple=True, type=click.Choice([*UPSTREAMS]), default=tuple(UPSTREAMS))
@click.option("--connections", multiple=True, type=int, default=(1, 16, 64), show_default=True)
@click.option("--requests", default=6000, show_default=True, help="GETs in each measurement.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here too.")
def main(names: tuple[str, ...], connections: tuple[int, ...], requests: int, path: Path | None) -> None:
    """GET through the gateway against direct: latency and throughput as ratios, and CPU µs per request."""
    rows = uvloop.run(_all(names, connections, requests))
    Console(width=140).print(_table(rows))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1))


async def _all(names: tuple[str, ...], connections: tuple[int, ...], requests: int) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            click.echo(f"{name}: starting", err=True)
            scene = Path(directory) / name
            scene.mkdir()
            async with UPSTREAMS[name](scene) as upstream, Platform(scene / "platform") as platform:
                await platform.attach(name, upstream.kubeconfig)
                for count in connections:
                    click.echo(f"{name}: {count} connections", err=True)
                    rows.append(await _measure(upstream, platform, count, requests))
    return rows


async def _measure(upstream: Upstream, platform: Platform, connections: int, requests: int) -> Row:
    direct = Target(upstream.url, upstream.tls, upstream.headers)
    gateway = Target(f"{platform.url}/clusters/{upstream.name}{PATH}", _user_tls(platform))
    for target in (direct, gateway):
        await run(target, connections, WARM_UP)
    straight = await run(direct, connections, requests)
    processes = (platform.server().pid, platform.agent(upstream.name).pid)
    before = [Usage.of(pid).cpu for pid in processes]
    through = await run(gateway, connections, requests)
    server, agent = (1e6 * (Usage.of(pid).cpu - b) / requests for pid, b in zip(processes, before, strict=True))
    return _row(upstream.name, connections, straight, through, server, agent)


def _row(name: str, connections: int, direct: Result, gateway: Result, server: float, agent: float) -> Row:
    times = [1e6 * side.percentile(share) for share in (0.5, 0.99) for side in (direct, gateway)]
    direct_p50, gateway_p50, direct_p99, gateway_p99 = times
    p50, p99 = (direct_p50, gateway_p50), (direct_p99, gateway_p99)
    return Row(name, connections, *p50, *p99, direct.rate, gateway.rate, server, agent)


def _user_tls(platform: Platform) -> ssl.SSLContext:
    issued = platform.certificate("admin", ["kulvert:admins"])
    pair = platform.directory / "user.pem"
    pair.write_bytes(issued.certificate + issued.key)
    tls = ssl.create_default_context(cadata=platform.ca.decode())
    tls.load_cert_chain(pair)
    return tls


def _table(rows: list[Row]) -> Table:
    table = Table(title="GET of one Pod: gateway against direct with impersonation")
    for column in ("upstream", "conns", "p50 direct", "p50 gateway", "ratio", "p99 ratio"):
        table.add_column(column, justify="right")
    for column in ("req/s direct", "req/s gateway", "ratio", "CPU server", "CPU agent", "CPU both"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.upstream, str(row.connections), f"{row.direct_p50:.0f} µs", f"{row.gateway_p50:.0f} µs",
            f"{row.p50_ratio:.2f}", f"{row.gateway_p99 / row.direct_p99:.2f}", f"{row.direct_rate:.0f}",
            f"{row.gateway_rate:.0f}", f"{row.rate_ratio:.2f}", f"{row.server_cpu:.0f} µs", f"{row.agent_cpu:.0f} µs",
            f"{row.server_cpu + row.agent_cpu:.0f} µs",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
