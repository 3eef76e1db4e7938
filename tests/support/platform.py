"""Kulvert as it is run: a real `kulvert serve`, and a real `kulvert agent` for each cluster, as processes."""

from __future__ import annotations

import base64
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import yaml

from auth.jointoken import JoinToken
from auth.pki import CertificateAuthority, Issued
from gateway.membership.registry import Cluster as Registered
from gateway.membership.stores import Stores
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import AgentIdentity, agent_identity, token_kubeconfig
from tests.support.processes import Port, Process, stop

PROGRAM = Path(sys.executable).parent / "kulvert"
Grant = dict[str, Any]


def grant(name: str, clusters: Iterable[str], *, users: Iterable[str] = (), groups: Iterable[str] = ()) -> Grant:
    """An entry of the grants file."""
    subjects = [{"kind": "User", "name": user} for user in users]
    subjects += [{"kind": "Group", "name": group} for group in groups]
    return {"name": name, "subjects": subjects, "clusters": list(clusters)}


ADMINS = grant("admins", ["*"], groups=["kulvert:admins"])


@dataclass(frozen=True)
class Usage:
    """What a process holds: resident memory in bytes, open descriptors, CPU seconds used so far."""

    rss: int
    fds: int
    cpu: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        """From /proc."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return cls(rss, len(os.listdir(f"/proc/{pid}/fd")), cpu)


class Platform:
    """A server and its agents. An async context; `start_agent` attaches a cluster of the test bed."""

    def __init__(
        self,
        directory: Path,
        grants: Iterable[Grant] = (ADMINS,),
        *,
        domain: str = "kulvert.test",
        env: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        program: Sequence[str | Path] = (PROGRAM,),
    ) -> None:
        """`program` is run as `kulvert` for the server; agents are always the real one."""
        self.directory = directory
        self._program = program
        self._env = dict(env or {})
        self.settings = dict(settings or {})
        """Settings of the server, beside those that every test needs; a restart takes them over."""
        self.state = directory / "state"
        self._ports = (Port(), Port())
        self._domain = domain
        self._processes: dict[str, Process] = {}
        self._prepared: dict[str, Path] = {}
        self.state.mkdir(mode=0o700, parents=True)
        self.set_grants(grants)

    async def __aenter__(self) -> Self:
        try:
            await self.start_server()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End everything, and leave nothing."""
        await stop(self._processes.values(), 5.0)
        for port in self._ports:
            port.release()

    # --- the server

    @property
    def port(self) -> int:
        """The users' port."""
        return self._ports[0].number

    @property
    def agents_port(self) -> int:
        """The agents' port."""
        return self._ports[1].number

    @property
    def url(self) -> str:
        """The gateway."""
        return f"https://localhost:{self.port}"

    @property
    def ca(self) -> bytes:
        """The certificate of the platform's CA, PEM."""
        return (self.state / "ca.crt").read_bytes()

    @property
    def audit_log(self) -> Path:
        """JSON lines."""
        return self.state / "audit.log"

    @property
    def server_log(self) -> Path:
        """What the server printed."""
        return self.directory / "server.log"

    def audit(self) -> list[dict[str, Any]]:
        """The audit records so far."""
        return [orjson.loads(line) for line in self.audit_log.read_bytes().splitlines()]

    def set_grants(self, grants: Iterable[Grant]) -> None:
        """Write the grants file; a running server takes it over within about a second."""
        document = {"apiVersion": "kulvert.dev/v1alpha1", "kind": "Grants", "grants": list(grants)}
        draft = self.state / ".grants.new"
        draft.write_text(yaml.safe_dump(document))
        draft.replace(self.state / "grants.yaml")

    async def start_server(self) -> None:
        """Start it, again on the same ports and state where it was stopped or killed."""
        settings = {
            "stateDir": str(self.state),
            "listen": [f"127.0.0.1:{self.port}"],
            "agentsListen": [f"127.0.0.1:{self.agents_port}"],
            "audit": {"logPath": [str(self.audit_log)]},
            "names": ["localhost", "127.0.0.1", f"*.{self._domain}"],
            "domain": self._domain,
        }
        settings |= self.settings
        path = self.directory / "server.yaml"
        path.write_text(yaml.safe_dump(settings))
        self._run("server", "serve", "--config", path, log=self.server_log)
        await self._ready("server")

    def server(self) -> Process:
        """The server's process."""
        return self._processes["server"]

    async def stop_server(self, signal_number: int = signal.SIGTERM) -> None:
        """End the server, in order or (SIGKILL) not."""
        await self._end("server", signal_number)

    # --- agents

    async def start_agent(self, cluster: Cluster, name: str = "", **settings: Any) -> Process:
        """Attach a cluster, under its own name or another; returns when it is attached."""
        name = name or cluster.name
        if name not in self._prepared:
            identity = await _identity(cluster)
            kubeconfig = await token_kubeconfig(cluster, identity.token, f"{name}.agent.kubeconfig")
            self._prepare(name, kubeconfig, settings)
        return await self.restart_agent(name)

    async def attach(self, name: str, kubeconfig: Path, **settings: Any) -> Process:
        """Attach anything that a kubeconfig reaches, under a name; returns when it is attached."""
        self._prepare(name, kubeconfig, settings)
        return await self.restart_agent(name)

    async def restart_agent(self, name: str) -> Process:
        """Start the agent of a cluster that was attached before."""
        process = self._run(f"agent-{name}", "agent", "--config", self._prepared[name])
        await self._ready(f"agent-{name}")
        return process

    async def further_agent(self, name: str, further: str, **settings: Any) -> Process:
        """Another agent of a cluster that was attached before; `further` is its own name. Returns when it is there."""
        token = self.directory / f"{further}.token"
        token.write_text(self.join_token(name))
        document = yaml.safe_load(self._prepared[name].read_text())
        document |= {"agent": f"agent-{further}", "joinTokenFile": str(token)}
        document |= {"stateDir": str(self.directory / f"{further}.agent"), **settings}
        self._prepared[further] = self.directory / f"{further}.agent.yaml"
        self._prepared[further].write_text(yaml.safe_dump(document))
        return await self.restart_agent(further)

    async def second_agent(self, cluster: Cluster, name: str) -> Process:
        """The agent of another cluster that asks for a name, whose token nobody is accepted by. Does not wait for it:
        it is `NAME.second` here.
        """
        identity = await _identity(cluster)
        kubeconfig = await token_kubeconfig(cluster, identity.token, f"{name}.second.kubeconfig")
        path = self._configure(f"{name}.second", name, kubeconfig, {}, self.join_token(name, accept=False))
        return self.run_agent(f"{name}.second", path)

    def run_agent(self, name: str, config: Path) -> Process:
        """Start an agent by a configuration of its own."""
        return self._run(f"agent-{name}", "agent", "--config", config)

    def agent(self, name: str) -> Process:
        """The agent's process."""
        return self._processes[f"agent-{name}"]

    async def stop_agent(self, name: str, signal_number: int = signal.SIGTERM) -> None:
        """End an agent, in order or (SIGKILL) not."""
        await self._end(f"agent-{name}", signal_number)

    def _prepare(self, name: str, kubeconfig: Path, settings: Mapping[str, Any]) -> None:
        self._prepared[name] = self._configure(name, name, kubeconfig, settings, self.join_token(name))

    def _configure(
        self, name: str, cluster: str, kubeconfig: Path, settings: Mapping[str, Any], join_token: str
    ) -> Path:
        token = self.directory / f"{name}.token"
        token.write_text(join_token)
        path = self.directory / f"{name}.agent.yaml"
        document = {
            "servers": [f"https://localhost:{self.agents_port}"],
            "cluster": cluster,
            "joinTokenFile": str(token),
            "caFile": str(self.state / "ca.crt"),
            "kubeconfig": str(kubeconfig),
            "agent": f"agent-{name}",
            "stateDir": str(self.directory / f"{name}.agent"),
        }
        path.write_text(yaml.safe_dump(document | dict(settings)))
        return path

    def join_token(self, name: str, *, accept: bool = True) -> str:
        """Register a cluster where it is not, and make a join token for it: the first cluster that shows it has the
        name.
        """
        stores, now = Stores.open(self.state / "clusters.db"), time.time()
        try:
            if stores.registry.get(name) is None:
                stores.registry.add(Registered(name, None, now))
            token = JoinToken.create(os.urandom)
            stores.tokens.add(token.stored(name, now + 3600, created=now, accept=accept))
        finally:
            stores.close()
        return token.text()

    # --- users

    def certificate(self, user: str, groups: Iterable[str] = (), lifetime: float = 3600.0) -> Issued:
        """A client certificate by the platform's CA."""
        now = time.time()
        return CertificateAuthority.load_or_create(self.state / "ca.pem", "kulvert", now).issue_client(
            user, groups, now, lifetime
        )

    def kubeconfig(
        self, cluster: str, user: str = "admin", groups: Iterable[str] = ("kulvert:admins",), url: str = ""
    ) -> Path:
        """A kubeconfig that reaches `cluster` through the gateway (at `url`, if given), by a client certificate."""
        issued = self.certificate(user, groups)
        path = self.directory / f"{cluster}.{user}.kubeconfig"
        credentials = {"client-certificate-data": _data(issued.certificate), "client-key-data": _data(issued.key)}
        server = {"server": f"{url or self.url}/clusters/{cluster}", "certificate-authority-data": _data(self.ca)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": cluster,
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
            "clusters": [{"name": cluster, "cluster": server}],
            "users": [{"name": user, "user": credentials}],
        }
        draft = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
        draft.touch(mode=0o600)
        draft.write_text(yaml.safe_dump(document))
        draft.replace(path)  # whole: another kubectl may read it just now
        return path

    # --- processes

    def _run(self, name: str, *args: str | Path, log: Path | None = None) -> Process:
        """One of the programs, as a process."""
        path = log or self.directory / f"{name}.log"
        path.unlink(missing_ok=True)
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.directory), **self._env}
        process = Process(name, [*self._program_of(name), *args, "--log-format", "json"], path, env)
        self._processes[name] = process
        return process

    def _program_of(self, name: str) -> Sequence[str | Path]:
        return self._program if name == "server" else (PROGRAM,)

    async def _ready(self, name: str, timeout: float = 15.0) -> None:
        process = self._processes[name]

        async def said() -> bool:
            assert process.exited is None, f"{name} ended:\n{process.tail(30)}"
            return "ready: " in process.log.read_text(errors="replace")

        try:
            await until(said, f"{name} to be ready", timeout)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{process.tail(30)}") from error

    async def _end(self, name: str, signal_number: int) -> None:
        process = self._processes.pop(name)
        if signal_number == signal.SIGKILL:
            process.kill()
        else:
            await stop([process], 10.0)


async def _identity(cluster: Cluster) -> AgentIdentity:
    """The agent's service account, made once in each cluster."""
    token_file = cluster.directory / "kulvert-kulvert-agent.token"
    if token_file.exists():
        return AgentIdentity(cluster.server, cluster.ca_file, token_file, "kulvert", "kulvert-agent")
    return await agent_identity(cluster)


def _data(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
