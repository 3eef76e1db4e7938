"""`kulvert up` as a program: the whole path, and that nothing of it is left."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.command import Program, environment, processes_of_session, running
from tests.cli.kubeclient import KubeClient

KUBECTL = shutil.which("kubectl")
KEYS = {"agents-ca.pem", "ca.pem", "server.pem", "token-keys.json", "token-keys.lock"}
KEPT = {"audit.log", "ca.crt", "clusters.db", "epoch", "server-ca.crt", *KEYS}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def program(tmp_path: Path, state: Path) -> Iterator[Program]:
    with running("up", "--state-dir", state, "--port", "0", home=tmp_path) as started:
        started.until("ready")
        yield started


def assert_nothing_is_left(program: Program, state: Path, home: Path) -> None:
    assert processes_of_session(program.process.pid) == set()
    assert list((home / "tmp").iterdir()) == []
    assert {file.name for file in state.iterdir()} <= KEPT


def test_the_path_works_for_the_kubeconfig_that_it_writes(program: Program, state: Path, tmp_path: Path) -> None:
    file = state / "admin.kubeconfig"
    assert file.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(file.read_text())["current-context"] == "sample"
    status, text = KubeClient(file).get("/api/v1/namespaces/default/pods")
    assert (status, "demo" in text) == (200, True)
    assert program.stop() == 0
    assert_nothing_is_left(program, state, tmp_path)


@pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl")
@pytest.mark.usefixtures("program")
def test_the_real_kubectl_takes_the_path_too(state: Path, tmp_path: Path) -> None:
    def kubectl(*args: str) -> subprocess.CompletedProcess[str]:
        command = [str(KUBECTL), "--kubeconfig", str(state / "admin.kubeconfig"), *args]
        return subprocess.run(
            command, env=environment(tmp_path), capture_output=True, text=True, timeout=30, check=False
        )

    assert "demo" in kubectl("get", "pods", "-A").stdout
    done = kubectl("exec", "demo", "--", "sh", "-c", "echo through; exit 3")
    assert (done.stdout, done.returncode) == ("through\n", 3)
    assert "of the Kulvert sample" in kubectl("logs", "demo", "--tail", "1").stdout


def test_it_says_what_it_started_what_it_checked_and_how_to_go_on(program: Program, state: Path) -> None:
    text = program.output
    assert "not a cluster" in text
    assert "https://127.0.0.1:" in text
    for step in (
        "agent attached",
        "/readyz through the tunnel",
        "who the cluster sees",
        "list pods",
        "exec in pod demo",
    ):
        assert any(line.split()[0] == "ok" and step in line for line in text.splitlines() if line.strip())
    for command in ("get pods -A", "exec -it -n default demo -- sh", "logs -f -n default demo"):
        assert f"kubectl --kubeconfig {state / 'admin.kubeconfig'} {command}" in text
    assert text.splitlines()[-1] == "ready"
    assert "\x1b" not in text


def test_a_stream_that_is_open_does_not_hold_the_end(program: Program, state: Path, tmp_path: Path) -> None:
    command = [KUBECTL or "true", "--kubeconfig", str(state / "admin.kubeconfig"), "logs", "-f", "demo"]
    following = subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert program.stop(signal.SIGTERM, seconds=10) == 0
    following.kill()
    following.wait()
    assert_nothing_is_left(program, state, tmp_path)


@pytest.mark.parametrize("line", ["  ok     agent", "ready"])
def test_two_signals_end_it_at_any_time_and_leave_nothing(state: Path, tmp_path: Path, line: str) -> None:
    with running("up", "--state-dir", state, "--port", "0", home=tmp_path) as program:
        program.until(line)
        program.process.send_signal(signal.SIGINT)
        assert program.stop(signal.SIGINT, seconds=10) in (0, 130)
        assert_nothing_is_left(program, state, tmp_path)


@pytest.mark.usefixtures("program")
def test_a_second_up_on_the_same_state_is_refused_in_one_line(state: Path, tmp_path: Path) -> None:
    with running("up", "--state-dir", state, home=tmp_path) as second:
        assert second.process.wait(20) == 1
        assert second.output.startswith("kulvert: another Kulvert server runs on")
        assert second.output.count("\n") == 1
    assert KubeClient(state / "admin.kubeconfig").get("/readyz")[0] == 200


def test_after_a_kill_the_next_one_starts_as_if_nothing_were(state: Path, tmp_path: Path) -> None:
    with running("up", "--state-dir", state, "--port", "0", home=tmp_path) as killed:
        killed.until("ready")
    with running("up", "--state-dir", state, "--port", "0", home=tmp_path) as program:
        program.until("ready")
        assert program.stop() == 0


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(state: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running("up", "--state-dir", state, "--port", str(port), home=tmp_path) as program:
            assert program.process.wait(20) == 1
            assert program.output.startswith(f"kulvert: port {port}: Address already in use; choose another --port")


def test_the_default_port_gives_way_with_a_word(state: Path, tmp_path: Path) -> None:
    try:
        taken = socket.create_server(("127.0.0.1", 8443))
    except OSError:
        taken = None  # by somebody else: as good
    with running("up", "--state-dir", state, home=tmp_path) as program:
        program.until("ready")
        assert "port 8443 is taken, so this is a free one" in program.output
    if taken is not None:
        taken.close()
