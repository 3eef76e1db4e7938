"""`make bench`: GETs of one Pod through the gateway against the direct way, in one run.

The direct way impersonates too, with the agent's own credential: it is the same work for the API server. CPU is that of
the processes between, from /proc, without handshakes: far steadier than time on a busy machine. Beside it stands the
floor, two bare TLS splices in a row, since the same code costs more on a slower or busier machine.
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

from benchmarks import auditcost, decisions
from benchmarks.load import Target, run
from benchmarks.upstreams import UPSTREAMS, Floor, Upstream, floor
from tests.support.platform import Platform, Usage

PATH = "/api/v1/namespaces/default/pods/demo"
WARM_UP = 500


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the Pod: times in µs, requests in a second, CPU µs for a request in each process on the way."""

    p50: float
    p99: float
    rate: float
    cpu: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One upstream at one number of connections: direct, through two bare splices (the floor), through Kulvert."""

    upstream: str
    connections: int
    direct: Way
    floor: Way
    gateway: Way


@click.command()
@click.option("--upstream", "names", multiple=True, type=click.Choice([*UPSTREAMS]), default=tuple(UPSTREAMS))
@click.option("--connections", multiple=True, type=int, default=(1, 16, 64), show_default=True)
@click.option("--requests", default=8000, show_default=True, help="GETs in each measurement.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here too.")
def main(names: tuple[str, ...], connections: tuple[int, ...], requests: int, path: Path | None) -> None:
    """GET through the gateway against direct: latency and throughput as ratios, and CPU µs per request."""
    console = Console(width=160)
    console.print(_own_costs())
    rows = uvloop.run(_all(names, connections, requests))
    console.print(_table(rows))
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
            async with (
                UPSTREAMS[name](scene) as upstream,
                floor(upstream, scene) as least,
                Platform(scene / "platform") as platform,
            ):
                await platform.attach(name, upstream.kubeconfig)
                for count in connections:
                    click.echo(f"{name}: {count} connections", err=True)
                    rows.append(await _row(upstream, least, platform, count, requests))
    return rows


async def _row(upstream: Upstream, least: Floor, platform: Platform, connections: int, requests: int) -> Row:
    direct = Target(upstream.url, upstream.tls, upstream.headers)
    spliced = Target(least.url, least.tls, upstream.headers)
    gateway = Target(f"{platform.url}/clusters/{upstream.name}{PATH}", user_tls(platform))
    pids = (platform.server().pid, platform.agent(upstream.name).pid)
    return Row(
        upstream.name,
        connections,
        await _way(direct, connections, requests),
        await _way(spliced, connections, requests, least.pids),
        await _way(gateway, connections, requests, pids),
    )


async def _way(target: Target, connections: int, requests: int, pids: tuple[int, ...] = ()) -> Way:
    await run(target, connections, WARM_UP)
    before: list[float] = []
    result = await run(target, connections, requests, lambda: before.extend(Usage.of(pid).cpu for pid in pids))
    cpu = tuple(1e6 * (Usage.of(pid).cpu - used) / requests for pid, used in zip(pids, before, strict=True))
    return Way(1e6 * result.percentile(0.5), 1e6 * result.percentile(0.99), result.rate, cpu)


def user_tls(platform: Platform) -> ssl.SSLContext:
    """Trusts the platform, and shows the administrator's certificate."""
    issued = platform.certificate("admin", ["kulvert:admins"])
    pair = platform.directory / "user.pem"
    pair.write_bytes(issued.certificate + issued.key)
    tls = ssl.create_default_context(cadata=platform.ca.decode())
    tls.load_cert_chain(pair)
    return tls


def _own_costs() -> Table:
    """What each request pays for being decided and recorded, in process: µs of CPU, and the most it may be."""
    table = Table(title="CPU of a request's decisions and record, once they are cached")
    for column in ("what", "µs", "at most"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for cost in decisions.measure():
        what = f"authentication ({cost.credential}) and authorisation ({cost.grant} grant)"
        table.add_row(what, f"{cost.microseconds:.2f}", f"{decisions.BAR:g}")
    audit = auditcost.measure()
    for name, microseconds in asdict(audit).items():
        table.add_row(f"audit record ({name})", f"{microseconds:.2f}", f"{auditcost.BAR:g}")
    return table


def _table(rows: list[Row]) -> Table:
    table = Table(title="GET of one Pod: ratios to direct with impersonation; floor: two bare TLS splices in a row")
    for column in ("upstream", "conns", "p50 direct", "floor", "gateway", "p99", "req/s direct", "floor", "gateway"):
        table.add_column(column, justify="right")
    for column in ("CPU floor", "server", "agent", "both", "to floor"):
        table.add_column(column, justify="right")
    for row in rows:
        direct, least, gateway = row.direct, row.floor, row.gateway
        table.add_row(
            row.upstream, str(row.connections),
            f"{direct.p50:.0f} µs", f"× {least.p50 / direct.p50:.2f}", f"× {gateway.p50 / direct.p50:.2f}",
            f"× {gateway.p99 / direct.p99:.2f}",
            f"{direct.rate:.0f}", f"× {least.rate / direct.rate:.2f}", f"× {gateway.rate / direct.rate:.2f}",
            f"{sum(least.cpu):.0f} µs", *(f"{used:.0f} µs" for used in gateway.cpu), f"{sum(gateway.cpu):.0f} µs",
            f"× {sum(gateway.cpu) / sum(least.cpu):.2f}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
