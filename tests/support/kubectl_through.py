"""kubectl as one user of the platform, and the same user's requests past it: the answers have to be the same."""

from __future__ import annotations

import asyncio
import http.client
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.cluster_api import Api
from tests.support.kubectl import Kubectl, Result
from tests.support.platform import Platform


@dataclass(frozen=True)
class Through(Kubectl):
    """kubectl with a kubeconfig for the gateway, in one of the two ways in which kubectl carries streams."""

    cluster: Cluster
    user: str
    groups: tuple[str, ...]
    streams: Mapping[str, str] = field(default_factory=dict)

    async def same(self, *args: str | Path, input: bytes | None = None) -> Result:
        """Runs a command that changes nothing, and again past the gateway: exit code and output are equal.

        An age that grows by a second between the two is no difference; one of ours would be there each time.
        """
        for _ in range(3):
            ours = await self.run(*args, input=input)
            theirs = await self.past(*args, input=input)
            if (ours.returncode, ours.out, ours.err) == (theirs.returncode, theirs.out, theirs.err):
                break
        assert (ours.returncode, ours.out, ours.err) == (theirs.returncode, theirs.out, theirs.err)
        return ours

    async def past(self, *args: str | Path, input: bytes | None = None) -> Result:
        """Runs a command as the same user, at the cluster's own API server."""
        whom = [f"--as={self.user}", *(f"--as-group={group}" for group in self.groups)]
        return await self.cluster.kubectl(*whom, *args, input=input)

    def environment(self, kubeconfig: Path | None = None, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """See Kubectl.environment."""
        return super().environment(kubeconfig, {**self.streams, **(more or {})})


def through(
    platform: Platform,
    cluster: Cluster,
    streams: Mapping[str, str] | None = None,
    *,
    user: str = "admin",
    groups: tuple[str, ...] = ("kulvert:admins",),
) -> Through:
    """kubectl for one user of a cluster."""
    commands = cluster.commands
    kubeconfig = platform.kubeconfig(cluster.name, user, groups)
    return Through(commands.binary, kubeconfig, commands.home, cluster, user, groups, streams or {})


class Requests:
    """Requests of one of the platform's administrators: paths as the cluster's own API server knows them."""

    def __init__(self, platform: Platform, cluster: str) -> None:
        self.prefix = f"/clusters/{cluster}"
        self.context = _context(platform)
        self._port = platform.port
        self.api = Api(platform.port, self.context)

    def connect(self) -> http.client.HTTPSConnection:
        """One connection that is kept alive; to be used in a thread, and closed."""
        return http.client.HTTPSConnection("localhost", self._port, context=self.context, timeout=15)

    async def get_all(self, *paths: str) -> list[tuple[int, bytes]]:
        """Asks for one after the other on one connection."""
        return await asyncio.to_thread(self._get_all, paths)

    def _get_all(self, paths: tuple[str, ...]) -> list[tuple[int, bytes]]:
        connection = self.connect()
        try:
            connection.connect()
            first = connection.sock
            answers = []
            for path in paths:
                connection.request("GET", self.prefix + path)
                answer = connection.getresponse()
                answers.append((answer.status, answer.read()))
                assert connection.sock is first, "the gateway closed the connection"
            return answers
        finally:
            connection.close()


def _context(platform: Platform) -> ssl.SSLContext:
    issued = platform.certificate("admin", ["kulvert:admins"])
    context = ssl.create_default_context(cadata=platform.ca.decode())
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # ssl reads certificates from files alone
        file.write(issued.certificate + issued.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context
