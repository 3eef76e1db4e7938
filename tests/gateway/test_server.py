"""The composed server, and what it takes over while it runs."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from auth.grants.file import GrantsFile
from gateway.audit.settings import AuditSettings
from gateway.config import ServerConfig, TlsConfig
from gateway.membership.registry import Cluster
from gateway.server import Server
from tests.gateway.membership.test_clusterkeys import report
from tests.gateway.test_certificates import Configured

GRANTS = "apiVersion: kulvert.dev/v1alpha1\nkind: Grants\ngrants: []\n"
LOCAL = "127.0.0.1:0"


@asynccontextmanager
async def serving(at: Path, tls: TlsConfig | None = None) -> AsyncIterator[Server]:
    state = at / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    (state / "grants.yaml").write_text(GRANTS)
    config = ServerConfig(
        listen=(LOCAL,),
        agents_listen=(LOCAL,),
        state_dir=state,
        audit=AuditSettings(log_path=("none",)),
        tls=tls or TlsConfig(),
    )
    async with Server(config, "0.0.0") as server:
        yield server


async def shown(port: int, ca: Path) -> bytes:
    """The certificate that a port shows."""
    context = ssl.create_default_context(cafile=str(ca))
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="gw")
    der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return der


async def test_both_doors_show_a_new_certificate_soon_after_it_is_there(tmp_path: Path) -> None:
    configured = Configured(tmp_path)
    async with serving(tmp_path, configured.tls) as server:
        ports, ca = (server.port, server.agents_port), server.state.server_ca
        before = [await shown(port, ca) for port in ports]
        configured.put(configured.issue())
        await server.watcher.look()
        after = [await shown(port, ca) for port in ports]
    assert before[0] == before[1] != after[0] == after[1]


async def test_grants_are_read_beside_the_loop_and_a_failure_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.server.WATCH", 0.005)
    looked, threads, look = asyncio.Semaphore(0), set[int](), GrantsFile.look
    loop = asyncio.get_running_loop()
    failing: list[Callable[[], Any]] = [lambda: 1 / 0]

    def watched(file: GrantsFile) -> Any:
        threads.add(threading.get_ident())
        loop.call_soon_threadsafe(looked.release)
        if failing:
            failing[0]()
        return look(file)

    monkeypatch.setattr(GrantsFile, "look", watched)
    async with serving(tmp_path) as server, asyncio.timeout(10):
        for _ in range(3):
            await looked.acquire()
        problem = server.watcher.problem("grants")
        assert problem is not None
        assert "division" in problem
        failing.clear()
        await server.watcher.look()
        assert server.watcher.problem("grants") is None
    assert threading.get_ident() not in threads


async def test_a_server_begins_again_with_all_that_its_stores_hold(tmp_path: Path) -> None:
    """A store may tell of its content while it is opened, when nothing else is there yet."""
    keys = report("edge")
    async with serving(tmp_path) as server:
        server.registry.add(Cluster("edge-7", "uid-7", 1.0))
        server.clusters.keys.report("edge-7", "uid-7", keys, 1.0)
        server.authentication.revocations.revoke_user("eve", 1.0)
    async with serving(tmp_path) as server:
        assert server.clusters.keys.get("edge-7") is not None
