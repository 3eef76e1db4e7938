"""Clusters that join by declaration: installed, awaited, and their kubeconfig gone; what fails is told at the hub."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubernetes_asyncio import client

from gateway.hub.autojoin import Installer
from gateway.hub.clusters import EVENTS, JOIN, PATH, Declared, declared
from gateway.hub.informer import Informer
from gateway.hub.join import AGAIN
from gateway.hub.managedclusters import Clocks, ManagedClusters
from gateway.hub.managedstatus import Told
from gateway.hub.objects import JSON, Answer, HubObjects, HubUnavailable
from gateway.hub.settings import AutoJoinSettings
from gateway.joining.install import JoinFailed
from gateway.joining.kubeconfig import Target
from gateway.membership.conditions import AVAILABLE, HUB_ACCEPTED, JOINED, TRUE, Condition
from gateway.membership.inventory import Inventory
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores
from tests.gateway.joining.test_kubeconfig import SECRET, kubeconfig

UID = "11111111-2222-3333-4444-555555555555"
REFERENCE = "kulvert-join/edge"
SECRET_PATH = "/api/v1/namespaces/kulvert-join/secrets/edge"
SETTINGS = AutoJoinSettings(True, ("https://kulvert.example.com:8444",), timeout=5.0)
TYPES = ("HubAcceptedManagedCluster", "ManagedClusterJoined", "ManagedClusterConditionAvailable")


@dataclass
class Reply:
    status: int
    body: Mapping[str, Any]
    message: str = "you may not"


@dataclass
class Managed:
    """The API of the cluster that is to join."""

    refuses: str = ""
    uid: str = UID
    applied: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    fails: Exception | None = None

    @asynccontextmanager
    async def connect(self, target: Target) -> AsyncIterator[Managed]:
        self.targets.append(target)
        if self.fails is not None:
            raise self.fails
        yield self

    async def send(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Reply:
        if path == "/version":
            return Reply(200, {"major": "1", "minor": "31"})
        if method == "GET":
            return Reply(200, {"metadata": {"uid": self.uid}})
        if self.refuses and self.refuses in path:
            return Reply(403, {})
        if "dryRun" not in path:
            self.applied.append(path.partition("?")[0])
            self.bodies.append(body)
        return Reply(201, body)


class Hub(HubObjects):
    """The Secret, and what is told."""

    def __init__(self) -> None:
        super().__init__(client.ApiClient.__new__(client.ApiClient))
        self.secret: dict[str, Any] | None = secret(kubeconfig())
        self.statuses: list[Mapping[str, Any]] = []
        self.events: list[Mapping[str, Any]] = []
        self.asked: list[str] = []
        self.deleted: list[Any] = []
        self.fails: HubUnavailable | None = None
        self.status_code = 200
        self.objects: dict[str, dict[str, Any]] = {}

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = JSON) -> Answer:
        self.asked.append(f"{method} {path}")
        if self.fails is not None:
            raise self.fails
        if path == EVENTS:
            self.events.append(body or {})
            return Answer(201, {})
        if path.startswith(PATH):
            return self._managed(path.split("/")[-2] if method == "PUT" else path.split("/")[-1], body)
        if path != SECRET_PATH or self.secret is None:
            return Answer(404, {})
        if method == "DELETE":
            assert body is not None
            if body["preconditions"]["resourceVersion"] != self.secret["metadata"]["resourceVersion"]:
                return Answer(409, {})
            self.deleted.append(body["preconditions"])
            self.secret = None
            return Answer(200, {})
        return Answer(200, self.secret)

    def _managed(self, name: str, body: Mapping[str, Any] | None) -> Answer:
        if body is None:
            return Answer(200, self.objects[name])
        self.statuses.append(body)
        if self.status_code == 200:
            self.objects[name] = dict(body)
        return Answer(self.status_code, {})


def secret(data: bytes | None, version: str = "7") -> dict[str, Any]:
    content = {} if data is None else {"kubeconfig": base64.b64encode(data).decode()}
    return {"metadata": {"name": "edge", "uid": "u", "resourceVersion": version}, "data": content}


def managed_cluster(reference: str | None = REFERENCE, accepted: object = True, name: str = "edge") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "uid": "mc", "resourceVersion": "1"}
    if reference is not None:
        metadata["annotations"] = {JOIN: reference}
    return {"metadata": metadata, "spec": {"hubAcceptsClient": accepted}}


class World:
    def __init__(self, directory: Path) -> None:
        self.stores = Stores.open(directory / "kulvert.db")
        self.hub, self.cluster = Hub(), Managed()
        self.leading = True
        self.now = 1_800_000_000.0
        wall = lambda: self.now  # noqa: E731 -- an attribute would be bound too early
        installer = Installer(SETTINGS, self.stores, lambda: "PEM", wall, "1.2.3", self.cluster.connect, look=0.01)
        informer: Informer[Declared] = Informer.__new__(Informer)
        self.items: dict[str, Declared] = {}
        informer.items = self.items
        clocks, leads = Clocks(wall, wall), lambda: self.leading
        informer.synced = asyncio.Event()
        managed = ManagedClusters(self.hub, informer, self.stores, clocks, leads, False, installer, SETTINGS.namespaces)
        assert managed._join is not None
        self.join, self.statuses = managed._join, managed._statuses
        self.declare(managed_cluster())
        self.becomes_available = True

    def declare(self, *objects: dict[str, Any]) -> None:
        self.hub.objects = {one["metadata"]["name"]: one for one in objects}
        self.items.clear()
        self.items.update({name: declared(one) for name, one in self.hub.objects.items()})

    async def look(self, later: float = 0.0) -> None:
        self.now += later
        if self.becomes_available and self.stores.registry.get("edge") is None:
            self.stores.registry.add(Cluster("edge", None, self.now))
            self.available()
        self.join.look()
        await self.join.settled()
        await self.tell()

    async def tell(self) -> None:
        """The informer hears of it as well."""
        for name in self.hub.objects:
            self.statuses.ask(name)
        await self.statuses.paced.work_off()
        self.declare(*self.hub.objects.values())

    def available(self) -> None:
        for kind in (HUB_ACCEPTED, JOINED, AVAILABLE):
            self.stores.registry.set_conditions({"edge": [Condition(kind, TRUE, "Fine", "all is well", self.now)]})

    @property
    def conditions(self) -> dict[str, tuple[str, str, str]]:
        last = self.hub.statuses[-1]["status"]["conditions"]
        return {one["type"]: (one["status"], one["reason"], one["message"]) for one in last}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.stores.close()


async def test_a_declared_cluster_is_installed_accepted_and_its_kubeconfig_goes(world: World) -> None:
    await world.look()
    cluster = world.stores.registry.get("edge")
    assert cluster is not None
    assert cluster.uid == UID
    assert "/apis/apps/v1/namespaces/kulvert/deployments/kulvert-agent" in world.cluster.applied
    assert "kulvert/kulvert:1.2.3" in json.dumps(world.cluster.bodies)
    assert "https://kulvert.example.com:8444" in json.dumps(world.cluster.bodies)
    assert world.hub.deleted == [{"uid": "u", "resourceVersion": "7"}]
    await world.look(later=6)
    assert [world.conditions[kind][0] for kind in TYPES] == ["True"] * 3
    assert not world.hub.events
    (token,) = world.stores.tokens.list()
    assert (token.cluster, token.accept) == ("edge", False)


async def test_the_kubeconfig_is_kept_nowhere(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    await world.look()
    world.cluster.fails = JoinFailed("the cluster's API server cannot be used")
    world.hub.secret = secret(kubeconfig(), "8")
    await world.look(later=AGAIN)
    assert len(world.cluster.targets) == 2
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET.encode() not in kept
    assert SECRET not in caplog.text + json.dumps([*world.hub.statuses, *world.hub.events])
    assert world.cluster.targets[0].token == SECRET


async def test_nothing_is_done_until_the_hub_accepts(world: World) -> None:
    for accepted in (False, None, "true", 1):
        world.declare(managed_cluster(accepted=accepted))
        await world.look(later=10)
    assert not world.cluster.targets
    assert f"GET {SECRET_PATH}" not in world.hub.asked
    assert world.conditions[TYPES[0]][:2] == ("False", "NotAccepted")
    world.declare(managed_cluster())
    await world.look(later=1)
    assert world.hub.secret is None


async def test_without_the_annotation_a_cluster_is_left_alone(world: World) -> None:
    world.declare(managed_cluster(None))
    await world.look()
    assert not world.hub.asked


@pytest.mark.parametrize(
    "reference", ["kube-system/edge", "kulvert-join", "kulvert-join/", "/edge", "kulvert-join/a/b", "Kulvert-join/edge"]
)
async def test_only_secrets_of_the_settings_namespaces_are_read(world: World, reference: str) -> None:
    world.declare(managed_cluster(reference))
    await world.look()
    assert not [one for one in world.hub.asked if "/secrets/" in one]
    assert "in one of: kulvert-join" in world.conditions[TYPES[1]][2]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (kubeconfig(user={"exec": {"command": "touch"}}), "it would run a program"),
        (kubeconfig({"server": "https://h", "insecure-skip-tls-verify": True}), "must be verified"),
        (kubeconfig(user={"tokenFile": "/etc/passwd"}), "file of this server"),
        (b"- none", "no mapping"),
        (None, "no key kubeconfig"),
    ],
)
async def test_a_hostile_kubeconfig_is_refused_by_name_and_left_there(
    world: World, data: bytes | None, why: str
) -> None:
    world.becomes_available = False
    world.cluster.fails = JoinFailed("it was used")
    world.hub.secret = secret(data)
    await world.look()
    assert not world.cluster.targets
    assert world.conditions[TYPES[1]][:2] == ("False", "JoinFailed")
    assert why in world.conditions[TYPES[1]][2]
    assert (world.hub.events[0]["type"], world.hub.events[0]["reason"]) == ("Warning", "JoinFailed")
    assert not world.hub.deleted
    assert world.stores.registry.get("edge") is None


async def test_a_refusal_of_the_cluster_leaves_no_token_and_no_name(world: World) -> None:
    world.becomes_available = False
    world.cluster.refuses = "clusterroles"
    await world.look()
    cluster = world.stores.registry.get("edge")
    assert cluster is not None
    assert cluster.uid is None
    assert not world.stores.tokens.list()
    assert not world.cluster.applied
    assert "refuses ClusterRole" in world.conditions[TYPES[1]][2]


async def test_a_name_of_another_cluster_is_not_taken(world: World) -> None:
    world.stores.registry.add(Cluster("edge", "another", 1.0))
    await world.look()
    assert not world.cluster.applied
    assert "another cluster's" in world.conditions[TYPES[1]][2]
    assert not world.hub.deleted


async def test_until_it_is_available_the_kubeconfig_stays(world: World) -> None:
    world.becomes_available = False

    def passes() -> float:
        world.now += 0.5
        return world.now

    world.join._installer._wall = passes
    await world.look()
    assert world.cluster.applied
    assert not world.hub.deleted
    assert "not available" in world.conditions[TYPES[1]][2]


async def test_a_secret_that_was_replaced_meanwhile_is_not_deleted_but_used(world: World) -> None:
    def replaced(_target: Target) -> Any:
        world.hub.secret = secret(kubeconfig(), "9")
        return world.cluster.connect(_target)

    world.join._installer._connect = replaced
    await world.look()
    assert world.hub.secret is not None
    world.join._installer._connect = world.cluster.connect
    await world.look(later=10)
    assert world.hub.secret is None


async def test_what_fails_is_tried_again_with_pauses_that_grow_and_told_once(world: World) -> None:
    world.cluster.fails = JoinFailed("the cluster's API server cannot be used: refused")
    for later, tries in ((0, 1), (4, 1), (7, 2), (10, 2), (11, 3)):
        await world.look(later)
        assert len(world.cluster.targets) == tries
    assert len(world.hub.events) == 1
    world.cluster.fails = None
    await world.look(400)
    assert world.hub.secret is None
    assert [one["reason"] for one in world.hub.events] == ["JoinFailed", "Joined"]
    assert world.conditions[TYPES[1]][0] == "True"


async def test_a_cluster_that_has_joined_needs_no_secret(world: World) -> None:
    world.stores.registry.add(Cluster("edge", UID, 1.0))
    world.available()
    world.hub.secret = None
    await world.look()
    assert not world.hub.events
    assert world.conditions[TYPES[1]][0] == "True"
    world.stores.forget("edge")
    world.becomes_available = False
    await world.look(later=AGAIN)
    assert "there is no Secret" in world.conditions[TYPES[1]][2]


async def test_its_conditions_follow_and_are_written_only_where_they_differ(world: World) -> None:
    await world.look()
    count = len(world.hub.statuses)
    await world.look(later=6)
    await world.look(later=6)
    assert len(world.hub.statuses) == count
    world.stores.registry.set_conditions({"edge": [Condition(AVAILABLE, "False", "NoAgent", "gone", world.now)]})
    await world.look(later=6)
    assert world.conditions[TYPES[2]] == ("False", "NoAgent", "gone")
    await world.look(later=1)
    assert len(world.hub.statuses) == count + 1


async def test_who_else_writes_a_status_is_not_fought_all_the_time(world: World) -> None:
    await world.look()
    before = len(world.hub.statuses)
    for _ in range(600):
        status = world.hub.objects["edge"]["status"]
        others = [{**one, "status": "Unknown"} for one in status["conditions"]]
        world.declare({**world.hub.objects["edge"], "status": {**status, "conditions": others}})
        world.now += 1
        await world.tell()
    assert 3 <= len(world.hub.statuses) - before <= 9


async def test_one_who_does_not_lead_joins_and_tells_nothing(world: World) -> None:
    world.leading = False
    await world.look()
    assert not world.hub.asked


@pytest.mark.parametrize("code", [403, 409, 500])
async def test_a_status_that_cannot_be_written_stops_nothing(world: World, code: int) -> None:
    world.hub.status_code = code
    await world.look()
    assert world.hub.secret is None


async def test_a_hub_that_is_away_is_no_end(world: World) -> None:
    world.hub.fails = HubUnavailable("the hub does not answer")
    await world.look()
    world.hub.fails = None
    await world.look(later=11)
    assert world.hub.secret is None


def test_conditions_of_others_stay_and_a_transitions_time_too() -> None:
    others = {"type": "Other", "status": "True", "reason": "X", "message": "", "lastTransitionTime": "then"}
    mine = {"type": TYPES[0], "status": "True", "reason": "Old", "message": "", "lastTransitionTime": "then"}
    claims = [{"name": "other", "value": "x"}, {"name": "id.k8s.io", "value": "old"}]
    status = {"conditions": [others, mine], "capacity": {"gpu": "2", "cpu": "1"}, "clusterClaims": claims}
    inventory = Inventory("v1.36.0", "aws", 3, 3, (("cpu", "12"),), ())
    cluster = Cluster("edge", UID, conditions=(Condition(HUB_ACCEPTED, TRUE, "Accepted"),), inventory=inventory)
    after = Told.of(True, cluster).merged(managed_cluster() | {"status": status}, 5.0)
    assert after is not None
    first, second, *_ = after["status"]["conditions"]
    assert first == others
    assert (second["reason"], second["lastTransitionTime"]) == ("Accepted", "then")
    assert after["status"]["version"] == {"kubernetes": "v1.36.0"}
    assert after["status"]["capacity"] == {"gpu": "2", "cpu": "12"}
    assert {one["name"]: one["value"] for one in after["status"]["clusterClaims"]} == {
        "other": "x",
        "id.k8s.io": UID,
        "kubeversion.open-cluster-management.io": "v1.36.0",
        "platform.open-cluster-management.io": "AWS",
    }
    assert Told.of(True, cluster).merged(after, 6.0) is None


@pytest.mark.parametrize("status", [None, [], {"conditions": None}, {"conditions": ["x", None], "clusterClaims": [3]}])
def test_a_status_of_an_odd_shape_is_replaced(status: Any) -> None:
    after = Told.of(True, None).merged(managed_cluster() | {"status": status}, 5.0)
    assert after is not None
    assert [one["type"] for one in after["status"]["conditions"]] == sorted(TYPES)


def test_settings_that_cannot_work_are_named() -> None:
    assert not list(SETTINGS.problems())
    assert not list(AutoJoinSettings().problems())
    for wrong in (
        AutoJoinSettings(True),
        AutoJoinSettings(True, ("http://h",)),
        AutoJoinSettings(True, ("https://h",), ()),
    ):
        assert list(wrong.problems())
