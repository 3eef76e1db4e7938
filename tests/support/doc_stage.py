"""A place in which the examples of docs/ are run as a reader would: an empty home, kubectl and kulvert, a server, the
agent of a real cluster edge-7, a second real cluster as the hub, and dex. What a page calls by its example's name is
replaced by what it is here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import bind, create_pod
from tests.support.dex import Dex
from tests.support.doc_examples import Step, agrees
from tests.support.platform import ADMINS, PROGRAM, Grant, Platform, grant

CLUSTER = "edge-7"
PATIENCE = 15.0
BROWSER = """\
#!{python}
import asyncio, sys
sys.path.insert(0, {root!r})
from tests.support.doc_stage import browse
asyncio.run(browse({issuer!r}, sys.argv[1]))
"""


class Stage:
    """`run_all` does a section, `reset` undoes what it said about the agent."""

    def __init__(self, directory: Path, binaries: Path, edge: Cluster, hub: Cluster, dex: Dex) -> None:
        self.directory = directory / "work"
        self.platform = Platform(directory / "platform", [ADMINS])
        self._home = directory / "home"
        self._output = directory / "output"
        self._edge = edge
        self._dex = dex
        self._printed = ""
        self._agent: dict[str, Any] = {}
        self._plain_agent: dict[str, Any] = {}
        self._failed = ""
        self._written = 0
        self._behind: list[int] = []
        for place in (self.directory, self._home, self.directory / "etc"):
            place.mkdir(mode=0o700)
        (self.directory / "charts").symlink_to(_root() / "charts")
        self._names = {
            "https://kulvert.example.com:8443": self.platform.url,
            "https://kulvert.example.com:8444": f"https://localhost:{self.platform.agents_port}",
            "https://dex.example.com/dex": dex.issuer,
            "/var/lib/kulvert": str(self.platform.state),
            "/etc/kulvert": str(self.directory / "etc"),
        }
        browser = self._write("browser", BROWSER.format(python=sys.executable, root=str(_root()), issuer=dex.issuer))
        browser.chmod(0o700)
        self._write("edge-7.direct", edge.admin_kubeconfig.read_text())
        self._write("hub.direct", hub.admin_kubeconfig.read_text())
        self._write("edge-8.direct", hub.admin_kubeconfig.read_text())
        self._write("etc/hub.kubeconfig", hub.admin_kubeconfig.read_text())
        self._write("etc/dex-ca.crt", dex.ca_file.read_text())
        self._env = {
            "HOME": str(self._home),
            "PATH": f"{PROGRAM.parent}:{binaries}:{os.defpath}",
            "KULVERT_STATE_DIR": str(self.platform.state),
            "BROWSER": str(browser),
            "TERM": "dumb",
        }

    async def start(self) -> None:
        """A server, and an agent."""
        await create_pod(self._edge, "web")
        await bind(self._edge, "cluster-admin", group="kulvert:admins")
        await self.platform.start_server()
        await self.platform.start_agent(self._edge, CLUSTER)

    async def stop(self) -> None:
        """Ends all of it, and what examples have left in the background."""
        for group in self._behind:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        await self.platform.stop()

    async def reset(self) -> None:
        """The agent as every section may expect it. Server and grants stay as they are until others are told."""
        if self._agent:
            await self._restart_agent({})

    async def run(self, step: Step) -> None:
        """:raises AssertionError: it does not do what the page says."""
        text = self._here(step.text)
        if step.mark == "run":
            code = await self._script(text)
            self._failed = f"line {step.line} ends with {code}:\n{self._printed}" if code else ""
        elif step.mark == "out":
            assert agrees(text, self._printed), f"line {step.line}: the page shows\n{text}\nand it is\n{self._printed}"
            self._failed = ""
        elif step.mark == "server":
            await self._restart_server(yaml.safe_load(text))
        elif step.mark == "agent":
            await self._restart_agent(yaml.safe_load(text))
        elif step.mark == "grants":
            await self._grant(yaml.safe_load(text)["grants"])
        else:
            self._write(step.mark, text)

    async def run_all(self, steps: tuple[Step, ...]) -> None:
        """A section, with what settings of the server the one before has left."""
        if self.platform.server().exited is not None:
            await self._restart_server({})
        self._failed = ""
        for step in steps:
            if step.mark != "out":
                assert not self._failed, self._failed
            await self.run(step)
        assert not self._failed, self._failed

    def _here(self, text: str) -> str:
        for name, here in self._names.items():
            text = text.replace(name, here)
        return text

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    async def _script(self, text: str) -> int:
        with self._output.open("w+") as output:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-euo", "pipefail", "-c", text),
                cwd=self.directory, env=self._env, stdin=asyncio.subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
            try:
                code = await asyncio.wait_for(process.wait(), PATIENCE)
            except TimeoutError:
                code = -1
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 0)
                self._behind.append(process.pid)
            self._printed = self._output.read_text()
        return code

    async def _grant(self, grants: list[Grant]) -> None:
        """Returns when the server has read them, by a grant to nobody with a new name."""
        self._written += 1
        mark = grant(f"written-{self._written}", ["none"], users=["nobody"])
        self.platform.set_grants([ADMINS, *grants, mark])
        issued = self.platform.certificate("stage", ["kulvert:admins"])
        pem = self._write("stage.pem", (issued.certificate + issued.key).decode())
        url = f"{self.platform.url}/apis/kulvert.dev/v1alpha1/grants"
        ask = f"curl -s --cert {pem} --cacert {self.platform.state}/server-ca.crt {url}"
        assert await self._script(f"until {ask} | grep -q {mark['name']}; do sleep 0.05; done") == 0, self._printed

    async def _restart_server(self, settings: dict[str, Any]) -> None:
        if settings and settings == self.platform.settings:
            return
        self.platform.settings = settings
        await self.platform.stop_server()
        await self.platform.start_server()
        await self._attached()

    async def _restart_agent(self, settings: dict[str, Any]) -> None:
        self._agent = settings
        config = self.platform.directory / f"{CLUSTER}.agent.yaml"
        before = self._plain_agent = self._plain_agent or yaml.safe_load(config.read_text())
        config.write_text(yaml.safe_dump(before | settings))
        await self.platform.stop_agent(CLUSTER)
        await self.platform.restart_agent(CLUSTER)

    async def _attached(self) -> None:
        kubeconfig = self.platform.kubeconfig(CLUSTER)
        code = await self._script(f"until kubectl --kubeconfig {kubeconfig} get --raw /healthz; do sleep 0.1; done")
        assert code == 0, self._printed


async def browse(issuer: str, url: str) -> None:
    """What $BROWSER does: sign in at dex, and follow the way back."""
    import aiohttp

    from tests.support.dex import ADA
    from tests.support.dex_browser import Browser, Elsewhere

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        browser = Browser(session, issuer)
        try:
            await browser.open(url)
            await browser.submit(login=ADA.name, password=ADA.password)
        except Elsewhere as back:
            await (await session.get(back.url)).read()


def _root() -> Path:
    return Path(__file__).parents[2]
