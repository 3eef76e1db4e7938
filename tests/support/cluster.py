"""One real cluster on this machine: etcd, kube-apiserver, controllers, a node whose streams work.

Everything is started by the main thread and dies with it (processes.py); nothing here is bound to an event
loop, so that a fixture may start a cluster in one loop and tests may use it in theirs.
"""

import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.support import cluster_objects as objects
from tests.support.cluster_api import Api, until
from tests.support.cluster_commands import COMMANDS
from tests.support.cluster_config import Ports, write_files
from tests.support.kubectl import Kubectl, Result
from tests.support.processes import Port, Process, stop

T = TypeVar("T")
APISERVER = "kube-apiserver"
CLIENTS = ("kube-controller-manager", "kwok")  # they end when they find no API server, so it comes first


class ClusterError(Exception):
    """A cluster that did not come up, with the last words of its processes."""


class Cluster:
    """A cluster under test: an async context manager, or start() and stop().

    Ports, keys and files are there from the beginning; hence stop() is due even without start().
    """

    def __init__(self, name: str, binaries: Path, parent: Path | None = None) -> None:
        self.name = name
        self.uid = ""  # of its kube-system namespace, once it is up
        self._binaries = binaries
        self._reserved = [Port() for _ in range(4)]
        self._ports = Ports(*(port.number for port in self._reserved))
        self._processes: dict[str, Process] = {}
        self.directory = Path(tempfile.mkdtemp(prefix=f"kulvert-{name}-", dir=parent))
        self.files = write_files(self.directory, name, self._ports)
        self.server = f"https://127.0.0.1:{self._ports.apiserver}"
        self.ca_file = self.files.ca.file
        self.ca_pem = self.files.ca.pem
        self.admin_kubeconfig = self.files.admin_kubeconfig
        self.api = Api(self._ports.apiserver, self._admin_context())
        self.commands = Kubectl(binaries / "kubectl", self.admin_kubeconfig, self.files.home)

    async def __aenter__(self) -> Self:
        """Starts it; a failure leaves nothing behind."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        await self.stop()

    async def start(self) -> None:
        """Returns when pods can be made and reached."""
        try:
            for name in ("etcd", "kubelet"):
                self._run(name)
            await self.start_apiserver()
            for name in CLIENTS:
                self._run(name)
            await self._populate()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends everything, etcd last: without it the API server would hang in its graceful shutdown."""
        try:
            await stop(process for name, process in self._processes.items() if name != "etcd")
        finally:
            for process in self._processes.values():
                process.kill()
            for port in self._reserved:
                port.release()
            shutil.rmtree(self.directory, ignore_errors=True)

    async def start_apiserver(self) -> None:
        """Starts the API server, again where stop_apiserver() left off: same port, same objects."""
        self._run(APISERVER)
        await self.wait_for(self.api.ready, f"{APISERVER} to be ready")

    async def stop_apiserver(self, grace: float = 1.0) -> None:
        """Ends the API server alone; with a grace of 0 as a crash would."""
        if grace:
            await stop([self._processes[APISERVER]], grace)
        self._processes[APISERVER].kill()

    def pause_apiserver(self) -> None:
        """Freezes it: connections stay open, and nothing answers."""
        self._processes[APISERVER].send(signal.SIGSTOP)

    def resume_apiserver(self) -> None:
        """Ends a pause."""
        self._processes[APISERVER].send(signal.SIGCONT)

    @contextmanager
    def slow(self, name: str) -> Iterator[None]:
        """One of its processes does nothing in the block, and learns afterwards of all that has happened."""
        self._processes[name].send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._processes[name].send(signal.SIGCONT)

    @property
    def running(self) -> list[str]:
        """The processes that are alive; none after stop()."""
        return [name for name, process in self._processes.items() if process.alive]

    async def kubectl(
        self,
        *args: str | Path,
        kubeconfig: Path | None = None,
        input: bytes | None = None,
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Runs kubectl, as administrator unless a kubeconfig says otherwise."""
        return await self.commands.run(*args, kubeconfig=kubeconfig, input=input, timeout=timeout, env=env)

    def log_file(self, namespace: str, pod: str, container: str = objects.CONTAINER) -> Path:
        """What is written here, the container logged; removing it ends `logs -f`."""
        return self.files.container_logs / f"{namespace}_{pod}_{container}.log"

    async def wait_for(self, question: Callable[[], Awaitable[T]], what: str, timeout: float = 20) -> T:
        """Asks until the answer is a true one, and says which process is to blame if none comes."""

        async def ask() -> T:
            self._expect_all_alive()
            return await question()

        try:
            return await until(ask, what, timeout)
        except TimeoutError as error:
            raise ClusterError(f"{error}\n{self._last_words(*self._processes)}") from error

    def _run(self, name: str) -> None:
        command = COMMANDS[name](self._binaries, self.files, self._ports)
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.files.home)}
        self._processes[name] = Process(name, command, self.directory / f"{name}.log", env)

    async def _populate(self) -> None:
        await self.api.create("/api/v1/nodes", objects.node())
        await self.wait_for(self._node_is_up, "the node to be up")
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        await self.wait_for(lambda: self.api.get(account), "service accounts")  # no pod is admitted without
        self.uid = (await self.api.get("/api/v1/namespaces/kube-system"))["metadata"]["uid"]

    async def _node_is_up(self) -> bool:
        status = (await self.api.get(f"/api/v1/nodes/{objects.NODE}")).get("status", {})
        return bool(status.get("phase") == "Running")

    def _expect_all_alive(self) -> None:
        ended = [name for name, process in self._processes.items() if process.exited is not None]
        if ended:
            raise ClusterError(f"{', '.join(ended)} of {self.name} ended\n{self._last_words(*ended)}")

    def _last_words(self, *names: str) -> str:
        return "\n".join(f"--- {name}:\n{self._processes[name].tail()}" for name in names)

    def _admin_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        context.load_cert_chain(self.files.admin.cert, self.files.admin.key)
        return context
