"""A replica that waits for its hub, as a real program: a signal ends it at once, and in order."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.command import running
from tests.cli.test_serve_agent import prepared

SOON = 3.0
"""Seconds: it takes a fifth of one on a machine that has nothing else to do."""


class Hub(ThreadingHTTPServer):
    """An API server that answers until it is `silent`, and then nobody any more. `asked` is what it was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, silent: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.silent = silent
        self.asked: list[str] = []
        self.over = threading.Event()

    def until_asked(self, what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not any(one.startswith(what) for one in self.asked):
            assert time.monotonic() < deadline, self.asked
            time.sleep(0.02)


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._asked("GET")
        self._answer(404, {"kind": "Status", "code": 404, "reason": "NotFound"})

    def do_POST(self) -> None:
        self._asked("POST")
        made = json.loads(self.rfile.read(int(self.headers["content-length"])))
        made["metadata"]["resourceVersion"] = "2"
        self._answer(201, made)

    def _asked(self, method: str) -> None:
        said = f"{method} {self.path}"
        self.server.asked.append(said)
        if any(one.startswith(self.server.silent) for one in self.server.asked):
            self.server.over.wait()

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hubs() -> Iterator[list[Hub]]:
    made: list[Hub] = []
    yield made
    for hub in made:
        hub.over.set()
        hub.shutdown()
        hub.server_close()


def replica(home: Path, port: int) -> Path:
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
    settings["hub"] = {"kubeconfig": str(home / "hub.yaml")}
    settings["replicas"] = {"mode": "standby", "identity": "one", "namespace": "kulvert", "peersListen": "127.0.0.1:0"}
    path.write_text(yaml.safe_dump(settings))
    return path


def stopped(path: Path, home: Path, number: signal.Signals, hub: Hub | None = None) -> None:
    with running("serve", "--config", path, home=home) as server:
        if hub is not None:
            hub.until_asked(hub.silent)
        else:
            time.sleep(2.0)
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
    hubs: list[Hub], tmp_path: Path, silent: str, number: signal.Signals
) -> None:
    hub = begun(hubs, silent)
    stopped(replica(tmp_path, hub.server_port), tmp_path, number, hub)


def test_one_that_does_not_reach_its_hub_ends_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    stopped(replica(tmp_path, port), tmp_path, signal.SIGTERM)


def begun(hubs: list[Hub], silent: str) -> Hub:
    hub = Hub(silent)
    hubs.append(hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    return hub
