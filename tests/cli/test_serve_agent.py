"""The server and an agent as programs of their own, set up by the commands alone, as the README says."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.sample import SampleServer
from tests.cli.command import Program, kulvert, running
from tests.cli.kubeclient import KubeClient

GRANTS = """
apiVersion: kulvert.dev/v1alpha1
kind: Grants
grants:
  - name: admins
    subjects: [{kind: Group, name: "kulvert:admins"}]
    clusters: ["*"]
"""


@pytest.fixture
async def sample() -> AsyncIterator[SampleServer]:
    async with SampleServer() as server:
        yield server


def prepared(home: Path) -> Path:
    state = home / "state"
    assert kulvert("cluster", "add", "edge", "--state-dir", state).exit_code == 0
    (state / "grants.yaml").write_text(GRANTS)
    settings: dict[str, Any] = {
        "stateDir": str(state), "listen": ["127.0.0.1:0"], "agentsListen": ["127.0.0.1:0"],
    }  # fmt: skip
    settings |= {"names": ["127.0.0.1"], "audit": {"logPath": [str(state / "audit.log")]}}
    (home / "server.yaml").write_text(yaml.safe_dump(settings))
    return state


def agent_file(home: Path, state: Path, server: str, sample: SampleServer) -> Path:
    token = kulvert("token", "create", "edge", "-q", "--accept", "--state-dir", state).output
    (home / "token").write_text(token)
    settings = {"servers": [server], "cluster": "edge", "joinTokenFile": str(home / "token")}
    settings |= {
        "caFile": str(state / "server-ca.crt"),
        "kubeconfig": str(sample.kubeconfig(home / "sample", user=None)),
    }
    path = home / "agent.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def addresses(server: Program) -> tuple[str, str]:
    found = re.findall(r"https://127.0.0.1:\d+", server.until("ready: users at"))
    return found[0], found[1]


async def test_a_cluster_joins_and_a_user_reaches_it(sample: SampleServer, tmp_path: Path) -> None:
    await asyncio.to_thread(_joins_and_is_reached, sample, tmp_path)


def _joins_and_is_reached(sample: SampleServer, home: Path) -> None:
    state = prepared(home)
    with running("serve", "--config", home / "server.yaml", home=home) as server:
        users, agents = addresses(server)
        with running("agent", "--config", agent_file(home, state, agents, sample), home=home) as agent:
            agent.until("ready: cluster edge is attached")
            for kind in ("--certificate", "--token"):
                file = home / f"{kind}.yaml"
                kulvert("kubeconfig", "edge", kind, "--server", users, "-o", file, "--state-dir", state)
                assert KubeClient(file).get("/readyz") == (200, "ok")
            assert sample.uid in kulvert("cluster", "list", "--state-dir", state).output
            assert agent.stop() == 0, agent.output
        assert server.stop() == 0
        assert server.output.splitlines()[-1].startswith(("stopping", "{"))


def test_a_server_without_grants_does_not_start_and_says_what_to_write(tmp_path: Path) -> None:
    with running("serve", "--state-dir", tmp_path / "state", home=tmp_path) as server:
        assert server.process.wait(20) == 1
        assert "`kulvert serve --help` has an example" in server.output
        assert server.output.count("\n") == 1


def test_a_hangup_reopens_the_audit_log_and_stops_nothing(tmp_path: Path) -> None:
    state = prepared(tmp_path)
    log = state / "audit.log"
    with running("serve", "--config", tmp_path / "server.yaml", home=tmp_path) as server:
        addresses(server)
        log.rename(state / "audit.log.1")
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert log.exists()
        assert server.process.poll() is None
        assert server.stop() == 0


def test_a_registry_that_cannot_be_read_is_told_and_survived(tmp_path: Path) -> None:
    state = prepared(tmp_path)
    with running("serve", "--config", tmp_path / "server.yaml", home=tmp_path) as server:
        users, _ = addresses(server)
        context = ssl.create_default_context(cafile=str(state / "server-ca.crt"))

        def ready() -> int:
            try:
                with urllib.request.urlopen(f"{users}/readyz", context=context) as answer:  # noqa: S310 -- https
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        def becomes(status: int) -> None:
            deadline = time.monotonic() + 10
            while (found := ready()) != status and time.monotonic() < deadline:
                time.sleep(0.1)
            assert found == status, server.output

        becomes(200)
        kulvert("cluster", "add", "hub", "--state-dir", state)
        with sqlite3.connect(state / "clusters.db") as database:
            database.execute("UPDATE cluster SET labels = 'no JSON' WHERE name = 'hub'")
        database.close()
        becomes(503)
        database = sqlite3.connect(state / "clusters.db", isolation_level=None)
        database.execute("UPDATE cluster SET labels = '{}'")
        database.close()
        becomes(200)
        assert server.stop() == 0
