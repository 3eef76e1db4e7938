"""`python -m tests.testbed.up -- ARGS`: `kulvert up ARGS` with a real cluster, where the test bed is built already.

Nothing is built here. Without a test bed, or with a kubeconfig of the user's own, it becomes `kulvert up ARGS` itself.
The command has a process group of its own, so that a Ctrl-C reaches it once, by way of this process, which ends the
cluster after it.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from tests.support.cluster import Cluster, ClusterError
from tests.support.cluster_helpers import create_pod
from tests.support.processes import bound_to_us
from tests.testbed import BedError
from tests.testbed.pins import kubernetes_version
from tests.testbed.place import locate
from tests.testbed.progress import say

NAME = "testbed"
POD = "demo"
LINE_EVERY = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str]) -> int:
    """Gives the exit code of `kulvert up`."""
    args = list(argv[1:] if argv[:1] == ["--"] else argv)
    if any(arg.partition("=")[0] == "--kubeconfig" for arg in args) or os.environ.get("KULVERT_KUBECONFIG"):
        _become(args)
    try:
        binaries = locate(os.environ)
    except BedError:
        say("not built (`make testbed` builds it once): the sample API server stands in")
        _become(args)
    try:
        return asyncio.run(_Run(binaries, args).run())
    except asyncio.CancelledError:
        return 130
    except ClusterError as error:
        say(str(error))
        return 1


def _command(args: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "cli.main", "up", *args]


def _become(args: Sequence[str]) -> NoReturn:
    command = _command(args)
    os.execv(command[0], command)  # noqa: S606 -- this very interpreter


class _Run:
    """One cluster, and one `kulvert up` in front of it."""

    def __init__(self, binaries: Path, args: Sequence[str]) -> None:
        self._binaries = binaries
        self._args = args
        self._child: asyncio.subprocess.Process | None = None

    async def run(self) -> int:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled, number, task)
        say(f"starting a real cluster: etcd, kube-apiserver {kubernetes_version()}, controllers, a node …")
        async with Cluster(NAME, self._binaries) as cluster:
            await create_pod(cluster, POD)
            say("up; its node is a stand-in: exec in a pod runs commands on this machine, as you")
            writing = asyncio.create_task(_write_log(cluster.log_file("default", POD)))
            try:
                return await self._up(cluster)
            finally:
                writing.cancel()
                say("stopping the cluster")

    async def _up(self, cluster: Cluster) -> int:
        options = ["--kubeconfig", str(cluster.admin_kubeconfig), *self._args]
        self._child = await asyncio.create_subprocess_exec(
            *bound_to_us(_command(options)), env=self._environment(), start_new_session=True
        )
        return await self._child.wait()

    def _signalled(self, number: signal.Signals, task: "asyncio.Task[int]") -> None:
        if self._child is None:
            task.cancel()
        elif self._child.returncode is None:
            self._child.send_signal(number)

    def _environment(self) -> dict[str, str]:
        """The printed commands name the test bed's kubectl where there is no other."""
        own = {} if shutil.which("kubectl") else {"KULVERT_KUBECTL": str(self._binaries / "kubectl")}
        return {**os.environ, **own}


async def _write_log(path: Path) -> None:
    """What `logs -f` shows: nothing runs in a pod without a container engine."""
    number = 0
    while True:
        number += 1
        with path.open("a") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} line {number} of the test bed's demo pod\n")
        await asyncio.sleep(LINE_EVERY)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
