"""`kulvert serve --workers N` as one server: users and agents reach it wherever the kernel leads them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.workers.boot import name_of
from stub.assigned import Assigned
from stub.ownership import Replica
from tests.e2e.conftest import _bind as bind_admins
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.kubectl_through import Requests
from tests.support.platform import PROGRAM, Platform
from tests.support.processes import Process, bound_to_us

COUNTS = [2, 3]
POD = "worked"
OF_BEFORE = """
import sys
import agent.arrival
from tunnel.handshake import Hello

agent.arrival._with_hint = lambda target, hint: None
before = Hello.encode
Hello.encode = lambda hello: before(hello).replace(b',"hints":true', b"").replace(b'"hints":true,', b"")
from cli.main import main
main()
"""
"""An agent that knows no hints."""


class Working(Platform):
    """A server of several workers."""

    def __init__(self, directory: Path, count: int, *, agents: Sequence[str | Path] = (PROGRAM,), **more: Any) -> None:
        super().__init__(directory, settings={"workers": count, "timeouts": {"drain": 5.0}}, **more)
        self.count = count
        self._agents = agents

    def _program_of(self, name: str) -> Sequence[str | Path]:
        return self._agents if name.startswith("agent-") else super()._program_of(name)

    async def _ready(self, name: str, timeout: float = 60.0) -> None:
        await super()._ready(name, timeout)

    def lines(self) -> list[dict[str, Any]]:
        """What the server has logged."""
        found = self.server_log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in found if line.startswith("{")]

    def pid(self, worker: int) -> int:
        """Of a worker's process, now."""
        begun = [one for one in self.lines() if one["event"] == "a worker begins" and one["worker"] == worker]
        return int(begun[-1]["pid"])

    def attached(self, cluster: str) -> list[int]:
        """The workers to which agents of a cluster were attached, in turn."""
        there = [one for one in self.lines() if one["event"] == "agent attached" and one["cluster"] == cluster]
        return [one["worker"] for one in there]

    @property
    def audit_logs(self) -> list[Path]:
        """Of each worker."""
        return [self.audit_log, *(self.state / f"audit.{number}.log" for number in range(1, self.count))]

    def audit(self) -> list[dict[str, Any]]:
        """All workers' records."""
        return [json.loads(line) for log in self.audit_logs for line in log.read_bytes().splitlines()]

    def served(self) -> Counter[int]:
        """Users' requests, by the worker whose log has them."""
        return Counter({number: len(log.read_bytes().splitlines()) for number, log in enumerate(self.audit_logs)})

    async def metrics(self) -> str:
        """All workers'."""
        requests = Requests(self, "alpha")
        requests.prefix = ""
        (status, body), *_ = await requests.get_all("/metrics")
        assert status == 200, body
        return body.decode()

    async def passed_on(self) -> float:
        """Connections of agents that one worker passes on to another."""
        return sum(map(float, re.findall(r"^kulvert_agent_links_passed_on\{.*\} (.*)$", await self.metrics(), re.M)))


def owned(worker: int, count: int, among: str) -> str:
    """A cluster's name that is this worker's."""
    workers = tuple(Replica(name_of(one), "") for one in range(count))
    assigned = Assigned(workers, workers[0].identity, 1)
    return next(name for n in range(1000) if assigned.owner(name := f"{among}-{n}") == name_of(worker))


@asynccontextmanager
async def working(
    pair: tuple[Cluster, Cluster], at: Path, count: int, agents: Sequence[str | Path] = (PROGRAM,)
) -> AsyncIterator[tuple[Working, list[tuple[Cluster, str]]]]:
    """With a cluster for the first and one for the last worker, under names that are these."""
    await bind_admins(pair)
    names = [(pair[0], owned(0, count, "alpha")), (pair[1], owned(count - 1, count, "beta"))]
    async with Working(at / "platform", count, agents=agents) as served:
        for cluster, name in names:
            await served.start_agent(cluster, name)
        yield served, names


@asynccontextmanager
async def pods(*clusters: Cluster) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for cluster in clusters:
            await create_pod(cluster, POD)
            stack.push_async_callback(delete_pod, cluster, POD)
        yield


async def use_all(served: Working, cluster: Cluster, name: str) -> None:
    """get, exec, logs -f, a watch, port-forward: through whichever worker takes each connection."""
    kubeconfig = served.kubeconfig(name)
    for _ in range(8):
        found = await cluster.kubectl("get", "pods", "-o", "name", kubeconfig=kubeconfig)
        assert f"pod/{POD}" in found.check().out
    for size in (10, 300_000):
        told = await cluster.kubectl("exec", "-i", POD, "--", "cat", kubeconfig=kubeconfig, input=b"x" * size)
        assert len(told.check().stdout) == size
    log = cluster.log_file("default", POD)
    log.write_text("one\n")
    commands = cluster.commands
    async with commands.running("logs", "-f", POD, kubeconfig=kubeconfig) as following:
        assert await following.line() == "one"
        with log.open("a") as file:
            file.write("two\n")
        assert await following.line() == "two"
    async with commands.running("get", "pods", POD, "-o", "name", "-w", kubeconfig=kubeconfig) as watching:
        assert await watching.line() == f"pod/{POD}"
        (await cluster.kubectl("label", "pod", POD, f"at=t{time.time_ns()}", "--overwrite")).check()
        assert await watching.line() == f"pod/{POD}"
    await forwarded(cluster, kubeconfig)


async def forwarded(cluster: Cluster, kubeconfig: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        args = ("port-forward", "--address=127.0.0.1", f"pod/{POD}", f":{port}")
        async with cluster.commands.running(*args, kubeconfig=kubeconfig) as running:
            local = int((await running.line()).split(" -> ")[0].rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", local)
            writer.write(b"hello\n")
            assert await asyncio.wait_for(reader.readline(), 10) == b"HELLO\n"
            writer.close()


@pytest.mark.parametrize("count", COUNTS)
async def test_everything_works_from_whichever_worker_a_user_comes_to(
    count: int, clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    async with pods(*clusters), working(clusters, tmp_path, count) as (served, names):
        for cluster, name in names:
            await use_all(served, cluster, name)
        for worker, (_, name) in zip((0, count - 1), names, strict=True):
            assert served.attached(name) == [worker], "its agent was led to the worker that has it"
        assert await served.passed_on() == 0, "own links, too"
        own = re.findall(r'^kulvert_own_links\{worker="(\d+)",cluster="([^"]+)"\} (.*)$', await served.metrics(), re.M)
        assert {(int(w), c) for w, c, links in own if float(links) > 0} == {(0, names[0][1]), (count - 1, names[1][1])}
        served_by = served.served()
        print("requests by worker:", dict(served_by))
        assert all(served_by[worker] for worker in range(count))


async def test_an_agent_that_knows_no_hints_is_passed_on(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> None:
    old = [sys.executable, "-c", OF_BEFORE]
    async with pods(*clusters), working(clusters, tmp_path, 2, old) as (served, names):
        passed_on = []
        for _ in range(3):  # the parent leads them in turn: some come to the wrong worker
            for cluster, name in names:
                await use_all(served, cluster, name)
                passed_on.append(await served.passed_on())
                await served.stop_agent(name)
                await served.restart_agent(name)
        for worker, (_, name) in enumerate(names):
            assert set(served.attached(name)) == {worker}
        print("passed on:", passed_on)
        assert max(passed_on) > 0


async def test_a_worker_that_is_killed_comes_back_and_others_streams_go_on(
    clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    first = clusters[0]
    async with pods(*clusters), working(clusters, tmp_path, 2) as (served, names), AsyncExitStack() as stack:
        log = first.log_file("default", POD)
        log.write_text("one\n")
        following = []
        for _ in range(8):
            args = ("logs", "-f", POD)
            running = first.commands.running(*args, kubeconfig=served.kubeconfig(names[0][1]))
            following.append(await stack.enter_async_context(running))
            assert await following[-1].line() == "one"
        there = dict(re.findall(r'^kulvert_requests_long_running\{worker="(.)"\} (.*)$', await served.metrics(), re.M))
        print("streams by worker:", there)
        os.kill(served.pid(1), signal.SIGKILL)
        killed = time.monotonic()
        with log.open("a") as file:
            file.write("two\n")
        lines = await asyncio.gather(*(one.line() for one in following))
        assert Counter(lines)["two"] == float(there["0"]), "those at the other worker"

        async def back() -> bool:
            kubeconfig = served.kubeconfig(names[1][1])
            found = await clusters[1].kubectl("get", "pods", "-o", "name", kubeconfig=kubeconfig, timeout=20)
            return found.returncode == 0

        await until(back, "the cluster of the worker that was killed", 30.0)
        print(f"served again after {time.monotonic() - killed:.1f} s")
        assert served.attached(names[1][1]) == [1, 1]
        assert served.attached(names[0][1]) == [0]
        for cluster, name in names:
            await use_all(served, cluster, name)


async def test_an_orderly_end_lets_finish_what_is_under_way(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> None:
    async with pods(*clusters), working(clusters, tmp_path, 2) as (served, names):
        kubeconfigs = [served.kubeconfig(name) for _, name in names]
        shell = ("exec", POD, "--", "sh", "-c", "echo begun; sleep 2; echo done")
        async with AsyncExitStack() as stack:
            running = []
            for cluster, kubeconfig in zip(clusters, kubeconfigs, strict=True):
                for _ in range(3):
                    one = cluster.commands.running(*shell, kubeconfig=kubeconfig)
                    running.append(await stack.enter_async_context(one))
                    assert await running[-1].line() == "begun"
            parent = served.server()
            os.kill(parent.pid, signal.SIGTERM)
            assert [await one.line() for one in running] == ["done"] * 6
        await until(lambda: _gone(parent), "the server to end", 15.0)
        assert parent.exited == 0, parent.tail(20)
        assert not parent.alive, "no worker is left behind"
        assert not list(served.state.glob("workers-*"))


async def _gone(process: Process) -> bool:
    return process.exited is not None


async def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    async with Working(tmp_path / "platform", 2) as served:
        os.kill(served.server().pid, signal.SIGKILL)

        async def gone() -> bool:
            return not served.server().alive

        await until(gone, "the workers to end, too", 5.0)
        await served.start_server()


async def test_what_is_changed_at_one_place_is_known_to_all_workers(
    clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    async with working(clusters, tmp_path, 2) as (served, names):
        await asyncio.gather(*(_grants_come_and_go(served, *one) for one in names))
        await kulvert("certificate", "revoke", "--user", "ada", "--state-dir", served.state)
        await asyncio.sleep(3.0)
        cluster, name = names[0]
        await _all_say(cluster, served.directory / f"{name}.ada.kubeconfig", "does not know you")
        for _, name in names:
            uri = f"/apis/kulvert.dev/v1alpha1/grants/for-{name}"
            logged = [one["verb"] for one in served.audit() if one["requestURI"] == uri]
            assert logged == ["create", "delete"], "what the command did is in the log once"


async def _grants_come_and_go(served: Working, cluster: Cluster, name: str) -> None:
    allowed, refused = 'pods is forbidden: User "ada"', "no grant lets 'ada'"
    ada = served.kubeconfig(name, "ada", ["dev"])
    await _all_say(cluster, ada, refused)
    make = ("grant", "create", f"for-{name}", "--user", "ada", "--cluster", name)
    remove = ("grant", "delete", f"for-{name}")
    for where in (("--state-dir", served.state), ("--kubeconfig", served.kubeconfig(name))):
        await kulvert(*make, *where)
        await asyncio.sleep(2.0)
        await _all_say(cluster, ada, allowed)
        await kulvert(*remove, *where)
        await asyncio.sleep(2.0)
        await _all_say(cluster, ada, refused)
    await _agents_are_known(served, name)


async def _agents_are_known(served: Working, name: str) -> None:
    """Whichever worker has them, and whichever is asked."""
    requests = Requests(served, "x")
    requests.prefix = ""

    async def shown() -> dict[str, Any]:
        (status, told), *_ = await requests.get_all(f"/apis/kulvert.dev/v1alpha1/clusters/{name}")
        assert status == 200
        found: dict[str, Any] = json.loads(told)["status"]
        return found

    async def available() -> bool:
        conditions = {one["type"]: one["status"] for one in (await shown())["conditions"]}
        return conditions.get("Available") == "True"

    for _ in range(6):
        assert (await shown())["agents"] == 1
    await until(available, "the first worker to say that the cluster is available", 15.0)


async def _all_say(cluster: Cluster, kubeconfig: Path, what: str) -> None:
    for _ in range(6):
        found = await cluster.kubectl("get", "pods", kubeconfig=kubeconfig)
        assert what in found.err, found


async def kulvert(*args: str | Path) -> None:
    """The command, on the server's machine."""
    command = bound_to_us([PROGRAM, *args])
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, start_new_session=True)
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
