"""The sample API server as a whole: the composition, and its beginning and end.

It runs on the event loop that starts it. Closing it leaves nothing behind: no task, no process, no file.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from aiohttp import web

from cli.sample import certificates, kubeconfig, seed
from cli.sample.admission import Admission
from cli.sample.api import Api
from cli.sample.callers import AGENT, Caller
from cli.sample.exec import Exec
from cli.sample.front import Front
from cli.sample.logs import Logs
from cli.sample.objects import Objects
from cli.sample.pods import PodHost
from cli.sample.processes import Processes
from cli.sample.requestlog import RequestLog
from cli.sample.rules import ADMINS
from cli.sample.sources import Sources
from cli.sample.store import Store

_KEEP_ALIVE = 90.0  # kube-apiserver's, which the agent's upstream pool is built around


class SampleServer:
    """An async context manager, or `start` and `close`.

    `token` is the agent's, generated if not given; `callers` are further tokens; `uid` is the cluster's id.
    A server is started once. Tests may look into its `store` and at the `requests` that reached it.
    """

    def __init__(
        self,
        token: str | None = None,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        uid: str | None = None,
        callers: Mapping[str, Caller] | None = None,
        log_interval: float = 1.0,
        history: int = 1000,
        bookmark_every: float = 60.0,
        request_log: int = 1000,
        sources: Sources | None = None,
    ) -> None:
        sources = sources or Sources()
        self.token = token or secrets.token_urlsafe(32)
        self.uid = uid or sources.uid()
        self.requests = RequestLog(request_log)
        self._sources = sources
        self._callers = {self.token: AGENT, **(callers or {})}
        self._host = host
        self._port = port
        self._log_interval = log_interval
        self._bookmark_every = bookmark_every
        self.store = Store(int(sources.now().timestamp()), history)
        self._certificate = certificates.issue(dict.fromkeys((host, "127.0.0.1", "localhost")))
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """With the port that was found, once it has started."""
        return f"https://{self._host}:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def ca_pem(self) -> bytes:
        return self._certificate.ca_pem

    def kubeconfig(self, path: Path, user: str | None = "admin", groups: Sequence[str] = (ADMINS,)) -> Path:
        """Write a kubeconfig that acts as a user; with `user=None`, as the agent itself."""
        kubeconfig.write(path, kubeconfig.document(self.url, self.ca_pem, self.token, user, groups))
        return path

    async def start(self) -> None:
        async with AsyncExitStack() as stack:
            root = Path(stack.enter_context(TemporaryDirectory(prefix="kulvert-sample-")))
            pods = PodHost(root, Processes(), self._sources)
            stack.push_async_callback(pods.close)
            front = self._compose(pods)
            await self._listen(front, stack)
            stack.push_async_callback(front.close)
            stack.callback(self.store.close)
            self._stack = stack.pop_all()

    async def close(self) -> None:
        await self._stack.aclose()

    async def __aenter__(self) -> SampleServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _compose(self, pods: PodHost) -> Front:
        store = self.store
        admission = Admission(self._sources)
        demo = seed.plant(store, admission, self.uid)
        pods.run(demo.uid, seed.demo_command(self._log_interval))
        objects = Objects(store, admission, pods, self._bookmark_every)
        api = Api(objects, Logs(store, pods), Exec(store, pods), self._sources)
        return Front(self._callers, self.requests, api.serve)

    async def _listen(self, front: Front, stack: AsyncExitStack) -> None:
        """A handler is cancelled when its client goes: that is what ends a watch, and an exec's process."""
        server = web.Server(front.handle, handler_cancellation=True, access_log=None, keepalive_timeout=_KEEP_ALIVE)
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, self._host, self._port, ssl_context=self._certificate.context())
        await site.start()
        self._port = runner.addresses[0][1]
