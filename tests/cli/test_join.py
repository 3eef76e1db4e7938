"""`kulvert cluster join`: a manifest for others to apply, or an installation by a kubeconfig that is kept nowhere."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from auth.jointoken import JoinToken
from cli import joinapply
from cli.lock import only_one
from gateway.membership.conditions import Condition
from gateway.membership.enrolments import Choice, Enrolment
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores
from tests.cli.command import kulvert

SERVER = ("--server", "https://k.example.com:8444")
UID = "11111111-2222-3333-4444-555555555555"


def opened(state: Path) -> Stores:
    return Stores.open(state / "clusters.db")


def test_the_manifest_is_printed_for_a_name_that_is_added(tmp_path: Path) -> None:
    result = kulvert("cluster", "join", "edge", *SERVER, "--label", "a=b", "--state-dir", tmp_path / "s")
    assert result.exit_code == 0
    assert "once it asks: kulvert cluster accept edge" in result.stderr
    objects = {one["kind"]: one for one in yaml.safe_load_all(result.stdout)}
    token = JoinToken.parse(objects["Secret"]["stringData"]["token"])
    assert "BEGIN CERTIFICATE" in objects["ConfigMap"]["data"]["ca.crt"]
    assert objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"].startswith("kulvert/kulvert:")
    stores = opened(tmp_path / "s")
    stored, cluster = stores.tokens.get(token.id), stores.registry.get("edge")
    stores.close()
    assert stored is not None
    assert (stored.cluster, stored.accept) == ("edge", False)
    assert 86_000 < stored.expires - time.time() <= 86_400
    assert cluster is not None
    assert (cluster.uid, cluster.labels) == (None, (("a", "b"),))


def test_a_cluster_may_be_accepted_beforehand_by_its_id_or_by_the_token(tmp_path: Path) -> None:
    by_id = kulvert("cluster", "join", "edge", *SERVER, "--id", UID, "--state-dir", tmp_path / "s")
    assert "once it asks" not in by_id.stderr
    by_token = kulvert("cluster", "join", "hub", *SERVER, "--accept", "--state-dir", tmp_path / "s")
    assert "once it asks" not in by_token.stderr
    stores = opened(tmp_path / "s")
    uids = {one.name: one.uid for one in stores.registry.list()}
    accepting = {one.cluster: one.accept for one in stores.tokens.list()}
    stores.close()
    assert uids == {"edge": UID, "hub": None}
    assert accepting == {"edge": False, "hub": True}


@pytest.mark.parametrize("server", ["http://k:1", "k k", "https://k/path", ""])
def test_an_address_that_agents_cannot_dial_is_refused(tmp_path: Path, server: str) -> None:
    result = kulvert("cluster", "join", "edge", "--server", server, "--state-dir", tmp_path / "s")
    assert result.exit_code == 2
    assert "--server" in result.stderr
    assert result.stdout == ""


# --- by a kubeconfig


class Api:
    """The cluster, as `cli.up.apiclient.ApiClient` asks it."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.minor = "36+"
        self.bodies: list[Any] = []
        self.applied: list[tuple[str, str]] = []

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def send(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        from cli.up.apiclient import Reply

        if path == "/version":
            return Reply(200, {"major": "1", "minor": self.minor})
        if method == "GET":
            return Reply(200, {"metadata": {"uid": UID}})
        assert kind == "application/apply-patch+yaml"
        path, _, query = path.partition("?")
        if self.refuses and self.refuses in path:
            return Reply(403, {"message": "forbidden: you may not"})
        self.applied.append((path, query))
        self.bodies.append(body)
        return Reply(201, body)


def by_kubeconfig(state: Path, kubeconfig: Path, *more: str) -> Result:
    return kulvert("cluster", "join", "edge", *SERVER, "--kubeconfig", kubeconfig, *more, "--state-dir", state)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "edge.kubeconfig"
    path.write_text("planted-kubeconfig")
    return path


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()
    monkeypatch.setattr(joinapply, "ApiClient", lambda _access: made)
    monkeypatch.setattr("agent.kubeconfig.load", lambda _path, _context: None)
    return made


def test_the_agent_is_installed_and_waited_for_and_the_kubeconfig_is_kept_nowhere(
    tmp_path: Path, kubeconfig: Path, api: Api
) -> None:
    state = tmp_path / "s"
    stop = threading.Event()

    def attaches() -> None:
        """What the server would write."""
        while not stop.wait(0.05):
            if not (state / "clusters.db").exists():
                continue
            stores = opened(state)
            cluster = stores.registry.get("edge")
            applied = any("dryRun" not in query for _, query in api.applied)
            if cluster is not None and cluster.uid == UID and applied:
                stores.registry.set_condition("edge", Condition("Available", "True", "AgentsReady", "2 of 2 agents"))
                stop.set()
            stores.close()

    thread = threading.Thread(target=attaches)
    thread.start()
    try:
        with only_one(state):
            result = by_kubeconfig(state, kubeconfig, "--timeout", "20s")
    finally:
        stop.set()
        thread.join()
    assert result.exit_code == 0, result.output
    assert "cluster edge has joined" in result.output
    assert "2 of 2 agents" in result.output
    real = [path for path, query in api.applied if "dryRun" not in query]
    assert len(real) == len(api.applied) / 2 == 14
    assert all(query.startswith("fieldManager=kulvert&force=true") for _, query in api.applied)
    for file in state.iterdir():
        assert b"planted-kubeconfig" not in file.read_bytes()


def test_a_cluster_that_refuses_an_object_is_left_as_it_was(tmp_path: Path, kubeconfig: Path, api: Api) -> None:
    api.refuses = "clusterroles"
    with only_one(tmp_path / "s"):
        result = kulvert("cluster", "join", "edge", *SERVER, "--kubeconfig", kubeconfig, "--state-dir", tmp_path / "s")
    assert result.exit_code == 1
    assert "the cluster refuses ClusterRole kulvert-agent: forbidden: you may not" in result.stderr
    assert all("dryRun=All" in query for _, query in api.applied)


def test_another_cluster_than_was_said_is_not_touched(tmp_path: Path, kubeconfig: Path, api: Api) -> None:
    state = tmp_path / "s"
    with only_one(state):
        result = by_kubeconfig(state, kubeconfig, "--id", "u2")
        assert "nothing was changed" in result.stderr
        kulvert("cluster", "accept", "edge", "--id", "u9", "--state-dir", state)
        result = kulvert("cluster", "join", "edge", *SERVER, "--kubeconfig", kubeconfig, "--state-dir", state)
    assert f"kulvert cluster switch edge --to {UID}" in result.stderr
    assert all("dryRun=All" in query for _, query in api.applied)


@pytest.mark.parametrize(
    ("minor", "flags", "verb"),
    [("36+", [], "impersonate:user-info"), ("35", [], "impersonate"), ("", [], "impersonate"),
     ("36", ["--no-constrained"], "impersonate"), ("35", ["--constrained"], "impersonate:user-info")],
)  # fmt: skip
def test_the_agent_is_constrained_where_the_cluster_can(
    tmp_path: Path, kubeconfig: Path, api: Api, minor: str, flags: list[str], verb: str
) -> None:
    api.minor, api.refuses = minor, "deployments"
    with only_one(tmp_path / "s"):
        by_kubeconfig(tmp_path / "s", kubeconfig, *flags)
    role = next(one for one in api.bodies if one["kind"] == "ClusterRole")
    assert role["rules"][0]["verbs"] == [verb]


def test_without_a_server_nothing_is_applied(tmp_path: Path, kubeconfig: Path, api: Api) -> None:
    result = kulvert("cluster", "join", "edge", *SERVER, "--kubeconfig", kubeconfig, "--state-dir", tmp_path / "s")
    assert result.exit_code == 1
    assert "no server runs" in result.stderr
    assert api.applied == []


@pytest.mark.usefixtures("api")
def test_an_agent_that_does_not_come_is_told_of(tmp_path: Path, kubeconfig: Path) -> None:
    with only_one(tmp_path / "s"):
        result = by_kubeconfig(tmp_path / "s", kubeconfig, "--timeout", "1s")
    assert result.exit_code == 1
    assert "see to the pods of namespace kulvert" in result.stderr
    shown = json.loads(kulvert("cluster", "show", "edge", "-o", "json", "--state-dir", tmp_path / "s").output)
    assert shown["status"]["clusterId"] == UID


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("by_id", [True, False])
def test_no_key_is_accepted_that_has_asked_for_the_cluster_before(
    tmp_path: Path, kubeconfig: Path, by_id: bool
) -> None:
    """What is installed has a token of its own: whoever waits with another one is somebody else."""
    state = tmp_path / "s"
    state.mkdir(mode=0o700)
    stores = opened(state)
    stores.registry.add(Cluster("edge"))
    stores.enrolments.told(Enrolment("edge", UID, "key", "agent", "", "fleet", 1.0, time.time()))
    with only_one(state):
        if by_id:
            kulvert("cluster", "join", "edge", *SERVER, "--id", UID, "--state-dir", state)
        else:
            by_kubeconfig(state, kubeconfig, "--timeout", "1s")
    stores.registry.poll()
    cluster, choices = stores.registry.get("edge"), [one.choice for one in stores.enrolments.list()]
    stores.close()
    assert cluster is not None
    assert (cluster.uid, choices) == (UID, [Choice.NONE])
