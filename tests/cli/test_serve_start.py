"""A replica that is told to stop while it still begins, as a real program: it ends at once, and in order."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.command import running
from tests.cli.fakehub import Hub
from tests.cli.test_serve_agent import prepared

SOON = 8.0
"""Seconds. It takes a fifth of one on a machine that has nothing else to do. One that only stopped between two
questions would wait for the answer that does not come, for ten; one that did not stop while it begins, for ever.
"""
ISSUER = "GET /.well-known/openid-configuration"
"""Asked when the Leases are being taken already, and the doors are not open yet."""
Hubs = Callable[..., Hub]


@pytest.fixture
def hubs() -> Iterator[Hubs]:
    made: list[Hub] = []

    def begun(silent: str, *, partly: bool = False) -> Hub:
        made.append(Hub(silent, partly=partly))
        made[-1].start()
        return made[-1]

    yield begun
    for hub in made:
        hub.stop()


def replica(home: Path, port: int, mode: str = "standby", **hub: Any) -> Path:
    """Its settings: one of several, with that hub."""
    prepared(home)
    kubeconfig = {
        "current-context": "hub",
        "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": "hub"}}],
        "clusters": [{"name": "hub", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "hub", "user": {"token": "t"}}],
    }
    (home / "hub.yaml").write_text(yaml.safe_dump(kubeconfig))
    path = home / "server.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["hub"] = {"kubeconfig": str(home / "hub.yaml"), **hub}
    settings["replicas"] = {"mode": mode, "identity": "one", "namespace": "kulvert", "peersListen": "127.0.0.1:0"}
    settings["leases"] = {"shards": 4}
    path.write_text(yaml.safe_dump(settings))
    return path


def stopped(path: Path, home: Path, number: signal.Signals, when: Callable[[], None]) -> None:
    """`when` waits for the moment of the signal."""
    with running("serve", "--config", path, home=home) as server:
        when()
        assert "ready:" not in server.output
        began = time.monotonic()
        assert server.stop(number, seconds=20) == 0, server.output
        assert time.monotonic() - began < SOON, server.output
        assert "stopped before it was ready" in server.output
        assert "Traceback" not in server.output


@pytest.mark.parametrize(
    ("silent", "number"),
    [
        ("GET ", signal.SIGTERM),
        ("POST ", signal.SIGINT),
        ("GET /api/v1/namespaces/kulvert/secrets?", signal.SIGTERM),
    ],
    ids=["at once", "for the keys", "after them"],
)
def test_one_whose_hub_falls_silent_ends_at_once(
    hubs: Hubs, tmp_path: Path, silent: str, number: signal.Signals
) -> None:
    hub = hubs(silent)
    stopped(replica(tmp_path, hub.server_port), tmp_path, number, lambda: hub.until_asked(silent))


def test_one_that_does_not_reach_its_hub_ends_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nobody.settimeout(30)
        stopped(replica(tmp_path, nobody.getsockname()[1]), tmp_path, signal.SIGTERM, lambda: hung_up_on(nobody))


def hung_up_on(nobody: socket.socket) -> None:
    """Whoever comes first, and everybody after him."""
    nobody.accept()[0].close()
    nobody.close()


@pytest.mark.parametrize(
    ("mode", "leases"),
    [("standby", ("kulvert",)), ("sharded", ("kulvert", "kulvert-shard-3"))],
    ids=["standby", "sharded"],
)
def test_one_that_already_holds_leases_lets_go_of_them(
    hubs: Hubs, tmp_path: Path, mode: str, leases: tuple[str, ...]
) -> None:
    hub = hubs(ISSUER, partly=True)

    def holds() -> None:
        hub.until_asked(ISSUER)
        hub.until(lambda: all(hub.holder(one) == "one" for one in leases))

    path = replica(tmp_path, hub.server_port, mode, tokenReview=True)
    stopped(path, tmp_path, signal.SIGTERM, holds)
    assert [hub.holder(one) for one in leases] == [""] * len(leases)
    assert not hub.holder("kulvert-replica-one")
