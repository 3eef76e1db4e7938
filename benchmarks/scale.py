"""One server and thousands of clusters, on this machine: memory, idle CPU, an attach storm, a flood of strangers.

    python -m benchmarks.scale --agents 2000 --records 10000 --json scale.json

The server is a real `kulvert serve`, measured from /proc; the agents are real ones but for their API servers
(`benchmarks.scale_agents`). CPU is in seconds of the server's process, not of the clock, so that a busy machine matters
little. It ends with 1 where a figure is beyond its bar. docs/scale.md explains the figures.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import click
import orjson
import uvloop
from rich.console import Console

from benchmarks.__main__ import user_tls
from benchmarks.load import LoadError, Result, Target, run
from benchmarks.scale_probe import Probe
from benchmarks.scale_registry import measure
from benchmarks.scale_report import Report, Step, slope
from benchmarks.scale_scene import KIB, Scene, cluster_name
from gateway.rlimit import raise_descriptors
from tests.support.processes import Port, bound_to_us

SMALL, LARGE = 3_000, 64_000
SETTLE = 2.0
"""Seconds until an attach storm has left the server's CPU."""
ENOUGH = 5_000
"""Records from which on a store's own memory does not count."""
RETRIES = 2
ROUNDS = 3
STRANGERS = 200
"""A second."""
NEWCOMERS = 50
"""Agents that attach during the flood."""


@click.command()
@click.option("--agents", default=2_000, show_default=True, help="Attached in steps: 5 %, 25 %, 50 %, all.")
@click.option("--records", default=10_000, show_default=True, help="Records of the registry and the informer.")
@click.option("--idle", default=15.0, show_default=True, help="Seconds of the measurement of idle CPU.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here too.")
def main(agents: int, records: int, idle: float, path: Path | None) -> None:
    """What clusters cost a server: memory, idle CPU, attach storm, handshake flood, latency."""
    raise_descriptors()
    report = uvloop.run(measured(agents, records, idle))
    report.show(Console(width=120))
    if path:
        path.write_bytes(orjson.dumps(report.document(), option=orjson.OPT_INDENT_2))
    sys.exit(0 if report.passed else 1)


async def measured(agents: int, records: int, idle: float) -> Report:
    """All of it."""
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        await _records(report, directory, records)
        async with Scene(directory, agents, agents) as scene:
            bench = Bench(scene, report, agents, idle)
            for part in (bench.one, bench.grow, bench.busy, bench.flood, bench.storm, bench.own_links, bench.users):
                click.echo(f"{part.__doc__}", err=True)
                try:
                    await part()
                except (LoadError, TimeoutError) as error:
                    report.errors.append(f"{part.__name__}: {error}")
    return report


async def _records(report: Report, directory: Path, count: int) -> None:
    for size in sorted({max(1, count // 100), max(1, count // 10), count}):
        report.records.append(await measure("registry", size, str(directory)))
    async with _process("benchmarks.scale_hub", str(port := _free()), str(count)):
        await _open(port)
        report.records.append(await measure("informer", count, f"http://127.0.0.1:{port}"))
    report.bar("lookup of a record", max(one.lookup_ns for one in report.records) / 1e3, 1.0, "µs")
    whole = [one.bytes_each for one in report.records if one.count == count]
    if count >= ENOUGH:
        report.bar("memory of a record", max(whole) / KIB, 5.0, "kB")


class Bench:
    """The measurements of one scene, in their order: each begins where the one before has ended."""

    def __init__(self, scene: Scene, report: Report, agents: int, idle: float) -> None:
        self._scene = scene
        self._report = report
        self._agents = agents
        self._idle = idle
        self._base = 0

    def _target(self, agents: int, size: int) -> Target:
        """GETs of so many bytes from each of the first clusters in turn."""
        paths = [f"/clusters/{cluster_name(n)}/api/v1/pods?bytes={size}" for n in range(agents)]
        return Target(self._scene.platform.url, user_tls(self._scene.platform), paths=paths)

    def _each(self) -> float:
        return (self._scene.usage().rss - self._base) / self._agents / KIB

    async def _cpu(self, seconds: float) -> float:
        """% of a core that the server uses now."""
        before, began = self._scene.usage().cpu, time.monotonic()
        await asyncio.sleep(seconds)
        return 100 * (self._scene.usage().cpu - before) / (time.monotonic() - began)

    async def _run(self, target: Target, connections: int, requests: int) -> Result:
        """GETs. Where the agents' process has no CPU for a second, the server says so, and they begin anew."""
        for _ in range(RETRIES):
            try:
                return await run(target, connections, requests)
            except LoadError as error:
                self._report.retried += 1
                click.echo(f"again, since one failed: {str(error)[-200:]}", err=True)
        return await run(target, connections, requests)

    async def _gets(self, name: str, agents: int) -> tuple[float, float]:
        """p50 of one user alone (s), and the server's CPU for each GET of 16 at once (µs): the best of some rounds."""
        figures, target = self._report.figures, self._target(agents, SMALL)
        await self._run(target, 16, max(2_000, 2 * agents))
        alone = min([await self._run(target, 1, 1_000) for _ in range(ROUNDS)], key=lambda one: one.percentile(0.5))
        costs, rates = [], []
        for _ in range(ROUNDS):
            before = self._scene.usage().cpu
            rates.append((await self._run(target, 16, 3_000)).rate)
            costs.append(1e6 * (self._scene.usage().cpu - before) / 3_000)
        figures[f"GET of 3 kB, {name}: p50, µs"] = 1e6 * alone.percentile(0.5)
        figures[f"GET of 3 kB, {name}: p99, µs"] = 1e6 * alone.percentile(0.99)
        figures[f"GETs in a second from 16 users, {name}"] = max(rates)
        figures[f"server CPU for a GET, 16 users, {name}, µs"] = min(costs)
        return alone.percentile(0.5), min(costs)

    # --- growth

    async def one(self) -> None:
        """The server with a single agent: what everything else is compared to."""
        await self._attach(1)
        await asyncio.sleep(SETTLE)
        self._base = self._scene.usage().rss
        self._report.figures["memory of the server with one agent, MB"] = self._base / KIB**2
        self._report.figures["idle CPU of the server with one agent, % of a core"] = await self._cpu(8.0)

    async def _attach(self, count: int) -> float:
        await self._scene.agents.tell(start=(0, count))
        return await self._scene.agents.until(lambda state: state["attached"] >= count, 120.0)

    async def grow(self) -> None:
        """Steps to all agents."""
        attached, steps = 1, sorted({max(2, self._agents * part // 100) for part in (5, 25, 50, 100)})
        for count in steps:
            before = self._scene.usage()
            seconds = await self._attach(count)
            used = self._scene.usage().cpu - before.cpu
            await asyncio.sleep(SETTLE)
            last = count == steps[-1]
            cpu = await self._cpu(self._idle if last else self._idle / 2)
            now, added = self._scene.usage(), count - attached
            each = (now.rss - self._base) / (count - 1) / KIB
            self._report.steps.append(Step(count, each, cpu, seconds, 1e3 * used / added, now.fds))
            attached = count
        self._grown()

    def _grown(self) -> None:
        report, steps = self._report, self._report.steps
        line = slope([(one.agents, one.kb * one.agents) for one in steps])
        report.figures["memory by the line that fits best, kB for each agent"] = line
        report.bar("memory of an idle cluster", max(line, steps[-1].kb), 75.0, "kB")
        report.bar("growth of memory, the last step to the fitted line", steps[-1].kb / line, 1.1, "×")
        report.bar("idle CPU with all agents", steps[-1].cpu, 5.0 * max(1.0, self._agents / 2_000), "% of a core")
        per_agent = [one.cpu / one.agents for one in steps]
        report.bar("growth of idle CPU for each agent, last to second step", per_agent[-1] / per_agent[1], 1.2, "×")

    # --- work

    async def busy(self) -> None:
        """What is left in memory of answers from all clusters."""
        report = self._report
        await self._run(self._target(self._agents, SMALL), 8, 2 * self._agents)
        await self._run(self._target(self._agents, LARGE), 8, 2 * self._agents)
        await asyncio.sleep(SETTLE)
        report.bar("memory of a cluster after answers of 3 kB and 64 kB", self._each(), 75.0, "kB")

    # --- who knocks

    async def flood(self) -> None:
        """Strangers at the door, users at theirs, in turn with quiet; then agents that want to come in all the same."""
        report, target = self._report, self._target(self._agents, SMALL)
        quiet: list[Probe] = []
        flooded: list[Probe] = []
        for last in (False, False, True):
            quiet.append(await Probe(target).last(3.0))
            async with _process("benchmarks.scale_flood", str(self._scene.platform.agents_port), str(STRANGERS)):
                await asyncio.sleep(2.0)
                flooded.append(await Probe(target).last(3.0))
                if last:
                    report.figures["server CPU in the flood, without users, % of a core"] = await self._cpu(4.0)
                    await self._newcomers()
        report.figures["GETs that failed, quiet"] = sum(one.failed for one in quiet)
        report.figures["GETs that failed in the flood"] = sum(one.failed for one in flooded)
        for name, each in (("quiet", quiet), ("in the flood", flooded)):
            report.figures[f"GET, {name}: p50, µs"] = 1e6 * _best(each, 0.5)
            report.figures[f"GET, {name}: p99, µs"] = 1e6 * _best(each, 0.99)
        name = f"while {STRANGERS} strangers a second knock"
        report.bar(f"p50 of a GET {name}", _best(flooded, 0.5) / _best(quiet, 0.5), 2.5, "×")
        report.bar(f"p99 of a GET {name}", _best(flooded, 0.99) / _best(quiet, 0.99), 8.0, "×")

    async def _newcomers(self) -> None:
        some = min(NEWCOMERS, self._agents)
        await self._scene.agents.tell(stop=(0, some))
        self._report.bar(f"until {some} agents are attached in the flood", await self._attach(self._agents), 10.0, "s")

    async def storm(self) -> None:
        """kill -9, a new start, and everybody comes back."""
        report, scene = self._report, self._scene
        probe = Probe(self._target(1, SMALL))
        killed = time.monotonic()
        report.figures["restart until ready, s"] = await scene.restart()
        asking = asyncio.create_task(probe.run(), name="probe")
        before = scene.usage().cpu
        back = await scene.agents.until(self._all_there, 120.0)
        report.figures["server CPU for each agent that came back, ms"] = (
            1e3 * (scene.usage().cpu - before) / self._agents
        )
        report.figures["kill -9 until all agents are back, s"] = time.monotonic() - killed
        asking.cancel()
        await asyncio.sleep(SETTLE)
        each = (scene.usage().rss - self._base) / self._agents / KIB
        report.figures["memory after the storm, kB for each agent"] = each
        report.figures["an answer in the storm: p50, ms"] = 1e3 * median(probe.latencies)
        report.figures["an answer in the storm: longest, ms"] = 1e3 * max(probe.latencies)
        report.bar("until all agents are back after kill -9", back, 30.0, "s")
        report.bar("longest wait for an answer in the storm", max(probe.latencies), 0.5, "s")

    async def own_links(self) -> None:
        """What an idle own link takes, and how many an agent keeps that was never asked for one."""
        report, some = self._report, min(200, self._agents)
        state = await self._scene.agents.tell()
        report.figures["own links that an agent keeps until one is wanted"] = state["own"] / self._agents
        before = self._scene.usage().rss
        await self._scene.agents.tell(want=(0, some))
        await self._scene.agents.until(lambda state: state["own"] >= 2 * some, 60.0)
        await asyncio.sleep(SETTLE)
        report.figures["memory of a warm own link, kB"] = (self._scene.usage().rss - before) / (2 * some) / KIB

    def _all_there(self, state: dict[str, int]) -> bool:
        """By both sides: agents without CPU may not have noticed yet that their server has gone."""
        return state["attached"] >= self._agents <= self._scene.usage().fds

    async def users(self) -> None:
        """GETs spread over all clusters, and of one cluster, and of one when it is the only one."""
        report = self._report
        await self._gets("spread over all agents", self._agents)
        among, shared = await self._gets("of one agent among all", 1)
        await self._scene.agents.tell(stop=(1, self._agents))
        await self._scene.agents.until(lambda _: self._scene.usage().fds < 100, 60.0)
        await asyncio.sleep(SETTLE)
        alone, own = await self._gets("of the only agent", 1)
        report.figures["p50 of a GET, with all agents attached to with one, ×"] = among / alone
        report.bar("server CPU for a GET, with all agents attached to with one", shared / own, 1.3, "×")


def _best(rounds: Sequence[Probe], share: float) -> float:
    """Of several rounds the least: other work on the machine only ever adds."""
    return min(one.percentile(share) for one in rounds)


@asynccontextmanager
async def _process(module: str, *args: str) -> AsyncIterator[None]:
    """A helper that ends with its stdin, or here."""
    argv: Sequence[str] = bound_to_us([sys.executable, "-m", module, *args])
    process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.PIPE)
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _free() -> int:
    port = Port()
    port.release()
    return port.number


async def _open(port: int, timeout: float = 15.0) -> None:
    async with asyncio.timeout(timeout):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


if __name__ == "__main__":
    main()
