"""Terminals of a real kubectl, recorded by both of its protocols; and what happens where there is no place for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import bind, create_pod, delete_pod
from tests.support.kubectl import SPDY
from tests.support.kubectl_terminal import terminal
from tests.support.kubectl_through import Through, through
from tests.support.platform import Platform
from tests.support.processes import Process

POLICY = """
apiVersion: kulvert.dev/v1alpha1
kind: RecordingPolicy
rules:
- recording: None
  users: [unseen]
- recording: Required
  sessions: [Terminal, Command]
  resources: [{resources: [pods/attach], resourceNames: [recorded]}]
- recording: Required
  clusters: ["al*"]
  namespaces: [default]
"""


class Recorded(Platform):
    """A platform that records."""

    @property
    def recordings(self) -> Path:
        """The directory."""
        return self.state / "recordings"

    def recorded(self) -> dict[str, list[Any]]:
        """The lines of all recordings."""
        files = sorted(self.recordings.iterdir())
        return {file.name: [json.loads(line) for line in file.read_bytes().splitlines()] for file in files}

    def _run(self, name: str, *args: str | Path, log: Path | None = None) -> Process:
        policy = self.directory / "recording.yaml"
        policy.write_text(POLICY)
        more = ("--recording-policy-file", policy) if name == "server" else ()
        return super()._run(name, *args, *more, log=log)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recording(cluster_a: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorded]:
    if not (cluster_a.directory / "admins-bound").exists():
        await bind(cluster_a, "cluster-admin", group="kulvert:admins")
        (cluster_a.directory / "admins-bound").touch()
    async with Recorded(tmp_path_factory.mktemp("recorded") / "platform") as served:
        await served.start_agent(cluster_a)
        await create_pod(cluster_a, "recorded")
        yield served
        await delete_pod(cluster_a, "recorded")


@pytest.fixture(params=["websocket", "spdy"])
def kubectl(request: pytest.FixtureRequest, recording: Recorded, cluster_a: Cluster) -> Through:
    shutil.rmtree(recording.recordings)
    recording.recordings.mkdir(mode=0o700)
    return through(recording, cluster_a, SPDY if request.param == "spdy" else None)


def shown(lines: list[Any]) -> str:
    return "".join(event[2] for event in lines[1:] if event[1] == "o")


async def test_a_terminal_is_recorded_with_its_sizes(kubectl: Through, recording: Recorded) -> None:
    wait = "until [ \"$(stty size)\" = '%s' ]; do sleep 0.05; done;"
    script = f"{wait % '30 90'} echo hello; read word; {wait % '40 100'} echo got $word; exit 3"
    with terminal(kubectl, "exec", "-it", "recorded", "--", "sh", "-c", script, rows=30, columns=90) as it:
        await it.expect("hello")
        assert "hello" in shown(*recording.recorded().values())  # while it runs
        it.type("ünseen\n")
        it.resize(40, 100)
        await it.expect("got ünseen")
        assert await it.wait() == 3
    ((name, lines),) = recording.recorded().items()
    assert (lines[0]["version"], lines[0]["width"], lines[0]["height"]) == (2, 90, 30)
    assert lines[0]["title"] == "exec alpha/default/pods/recorded by admin"
    assert shown(lines).replace("\r", "").splitlines() == ["hello", "ünseen", "got ünseen"]
    assert "100x40" in [event[2] for event in lines[1:] if event[1] == "r"]
    assert not [event for event in lines[1:] if event[1] in "im"]
    told = [event for event in recording.audit() if event["annotations"].get("kulvert.dev/recording") == name]
    assert [event["stage"] for event in told] == ["ResponseStarted", "ResponseComplete"]
    assert {event["annotations"]["kulvert.dev/stream"] for event in told} == {"exec"}
    assert {event["annotations"]["kulvert.dev/agent"] for event in told} == {"agent-alpha"}


async def test_an_attached_session_is_recorded(kubectl: Through, recording: Recorded) -> None:
    """The container has no terminal, so kubectl attaches without one: the rule has to speak of commands too."""
    with terminal(kubectl, "attach", "-q", "-it", "recorded") as it:
        it.type("typed\n")
        await it.expect("typed\r\ntyped")
        it.type("\x04")
        assert await it.wait() == 0
    assert shown(*recording.recorded().values()) == "typed\n"


async def test_much_output_is_recorded_whole(kubectl: Through, recording: Recorded) -> None:
    with terminal(kubectl, "exec", "-it", "recorded", "--", "sh", "-c", "seq 1 60000; echo end") as it:
        await it.expect("end\r\n", timeout=20)
        assert await it.wait() == 0
    whole = "\r\n".join(str(number) for number in range(1, 60_001)) + "\r\nend\r\n"
    assert shown(*recording.recorded().values()) == whole


async def test_what_no_rule_speaks_of_is_not_recorded(kubectl: Through, recording: Recorded) -> None:
    assert (await kubectl.run("exec", "recorded", "--", "echo", "command")).out == "command"
    with terminal(kubectl, "exec", "-it", "recorded", "--", "sh", "-c", "echo up; exit 4",
                  kubeconfig=recording.kubeconfig("alpha", "unseen")) as it:  # fmt: skip
        await it.expect("up")
        assert await it.wait() == 4
    assert recording.recorded() == {}


async def test_without_a_place_for_its_recording_no_terminal_begins(kubectl: Through, recording: Recorded) -> None:
    recording.recordings.rmdir()
    with terminal(kubectl, "exec", "-it", "recorded", "--", "sh", "-c", "echo up") as it:
        await it.expect("Kulvert's gateway must record this session, and cannot")
        assert await it.wait() == 1
        assert "up\r\n" not in it.screen
    recording.recordings.mkdir(mode=0o700)
    assert "cannot be opened" in recording.audit()[-1]["annotations"]["kulvert.dev/reason"]
