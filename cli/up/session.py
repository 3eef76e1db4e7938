"""`kulvert up` as a whole: what is started, in which order, and that all of it ends again."""

from __future__ import annotations

import errno
import time
from contextlib import AsyncExitStack

from auth.statefile import write_private
from cli.failures import Failed
from cli.kubeconfigfile import Entry, certificate, text
from cli.lock import only_one
from cli.loop import Stop, Stopped
from cli.serverconfig import for_up
from cli.terminal import Terminal
from cli.up.agentside import RunningAgent
from cli.up.checks import Checks
from cli.up.gatewayclient import GatewayClient
from cli.up.membership import member
from cli.up.request import ADMINS, HOST, PORT, USER, Request
from cli.up.story import LIFETIME, Started, tell_next, tell_started
from cli.up.target import Target, reach
from gateway.config import ServerConfig
from gateway.listener import listening_socket
from gateway.server import Server

GRANTS = """\
# Who may reach which cluster. Written by `kulvert up`, and removed at its end; a change counts within a second.
apiVersion: kulvert.dev/v1alpha1
kind: Grants
grants:
  - name: up-admins
    subjects: [{{kind: Group, name: "{group}"}}]
    clusters: ["{cluster}"]
"""


class Session:
    """One `kulvert up`."""

    def __init__(self, request: Request, terminal: Terminal, version: str) -> None:
        self._request = request
        self._terminal = terminal
        self._version = version

    async def run(self, stop: Stop) -> None:
        """Until it is told to stop. :raises Failed: it cannot be, or it ended by itself."""
        async with AsyncExitStack() as stack:
            try:
                async with stop.cuts():
                    agent = await self._start(stack)
                    await agent.ended()
            except Stopped:
                self._terminal.line("stopping")

    async def _start(self, stack: AsyncExitStack) -> RunningAgent:
        request = self._request
        stack.enter_context(only_one(request.state_dir))
        port = _free_port(request.port)
        target = await reach(request, stack)
        server = await stack.enter_async_context(Server(self._config(stack, port), self._version))
        token = stack.enter_context(member(server.clusters.lifecycle.stores, request.cluster))
        agent = await stack.enter_async_context(self._agent(server, target, token))
        started = Started(self._version, server.port, server.agents_port, target)
        entry = self._admin(stack, server, started)
        tell_started(self._terminal, request, started)
        pod = await self._check(entry)
        tell_next(self._terminal, request, started, pod)
        return agent

    def _config(self, stack: AsyncExitStack, port: int) -> ServerConfig:
        request = self._request
        grants = request.state_dir / "up-grants.yaml"
        write_private(grants, GRANTS.format(group=ADMINS, cluster=request.cluster).encode())
        stack.callback(grants.unlink, missing_ok=True)
        return for_up(request.state_dir, f"{HOST}:{port}", f"{HOST}:0", grants)

    def _agent(self, server: Server, target: Target, token: str) -> RunningAgent:
        from agent.config import load

        flags = {
            "servers": f"https://{HOST}:{server.agents_port}",
            "cluster": self._request.cluster,
            "join_token": token,
            "ca_file": self._request.state_dir / "ca.crt",
            "kubeconfig": target.kubeconfig,
            "kubeconfig_context": target.context,
        }
        return RunningAgent(load(None, {}, flags), self._version)

    def _admin(self, stack: AsyncExitStack, server: Server, started: Started) -> Entry:
        """The user's kubeconfig; it goes at the end, since it leads nowhere then, and its key is an administrator's."""
        now, cluster, path = time.time(), self._request.cluster, self._request.admin_kubeconfig
        authority = server.state.authority(now)
        issued = authority.issue_client(USER, (ADMINS,), now, LIFETIME)
        credentials = certificate(issued.certificate, issued.key)
        entry = Entry(cluster, f"{started.url}/clusters/{cluster}", authority.trusted_pem, USER, credentials)
        write_private(path, text(entry.document()).encode())
        stack.callback(path.unlink, missing_ok=True)
        return entry

    async def _check(self, entry: Entry) -> tuple[str, str] | None:
        async with GatewayClient(entry) as client, GatewayClient(entry, anonymous=True) as anonymous:
            checks = Checks(self._request.cluster, client, anonymous, self._terminal)
            await checks.run(sample=self._request.sample)
            return checks.pod


def _free_port(wanted: int | None) -> int:
    """The port asked for, or the default one, which gives way to any free one (0).

    :raises Failed: the one asked for is taken.
    """
    port = PORT if wanted is None else wanted
    try:
        listening_socket(HOST, port).close()
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        if wanted is None:
            return 0
        raise Failed(f"port {port}: {error.strerror}; choose another --port, or leave it out for a free one") from None
    return port
