"""Managed service accounts at the server: in time, for one holder, audited, the token nowhere but in its file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.database import RegistryError
from gateway.membership.registry import Change, Cluster, SqliteRegistry
from gateway.serviceaccounts.files import FileProjection, ProjectionError
from gateway.serviceaccounts.keeper import DELETE, TOKEN, ServiceAccountKeeper, rotates
from gateway.serviceaccounts.store import Managed, ServiceAccountStore, State, Wanted, holder_of
from gateway.serviceaccounts.view import conditions, read, shown
from tunnel.calls import CallFailed, Params

SECRET = "planted-token-that-must-be-nowhere"
WANTED = Wanted("edge", "ci", "deployer", "ada", "deployer.token")


class World:
    """A keeper, with everything around it in the test's hands."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.registry = SqliteRegistry(directory / "kulvert.db")
        self.store = ServiceAccountStore(self.registry.database)
        self.files = FileProjection(directory / "tokens")
        self.now = 1_000_000.0
        self.calls: list[tuple[str, str, Params]] = []
        self.lines: list[bytes] = []
        self.failure: Exception | None = None
        self.answer: Callable[[Params], Params] = self._token
        self.recording = True
        self.keeper = ServiceAccountKeeper(
            self.store, self.files, self._call, self, lambda: "audit-id", lambda: self.now, look=0.001
        )

    def record(self, line: bytes) -> None:
        self.lines.append(line)

    def ready(self) -> bool:
        return self.recording

    def _token(self, params: Params) -> Params:
        return {"token": f"{SECRET}-{len(self.calls)}", "expires": self.now + params["seconds"], "uid": "u"}

    async def _call(self, cluster: str, method: str, params: Params) -> Params:
        self.calls.append((cluster, method, params))
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return self.answer(params) if method == TOKEN else {"deleted": True}

    async def look(self) -> None:
        self.keeper.look()
        await self.keeper.settled()
        await asyncio.sleep(0)

    def managed(self, wanted: Wanted = WANTED) -> Managed:
        found = self.store.get(wanted.key)
        assert found is not None
        return found

    @property
    def token(self) -> str:
        return self.files.path(WANTED).read_text()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.registry.close()


async def test_a_token_is_put_into_its_holders_file_and_nowhere_else(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world.store.put(WANTED, "root", world.now)
    await world.look()
    assert world.token == f"{SECRET}-1"
    path = world.files.path(WANTED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    others = [file for file in world.directory.rglob("*") if file.is_file() and file != path]
    assert others
    assert not [file for file in others if SECRET.encode() in file.read_bytes()]
    assert SECRET not in caplog.text
    assert SECRET.encode() not in b"".join(world.lines)
    assert SECRET not in repr(world.managed()) + json.dumps(shown(world.managed()))


async def test_each_issue_is_audited_with_who_asked_the_holder_the_cluster_and_the_end(world: World) -> None:
    world.store.put(WANTED, "root", world.now)
    await world.look()
    event = json.loads(world.lines[0])
    assert event["user"]["username"] == "root"
    assert (event["verb"], event["responseStatus"]["code"]) == ("create", 201)
    assert event["objectRef"]["resource"] == "serviceaccounts"
    assert (event["objectRef"]["namespace"], event["objectRef"]["name"]) == ("ci", "deployer")
    assert event["annotations"]["kulvert.dev/cluster"] == "edge"
    assert event["annotations"]["kulvert.dev/reason"] == f"a token for 'ada', until {world.now + 3600:.0f}"


async def test_what_nobody_can_record_is_not_issued(world: World) -> None:
    world.recording = False
    world.store.put(WANTED, "root", world.now)
    await world.look()
    assert not world.calls
    assert "audit" in world.managed().state.error


async def test_a_token_is_made_anew_before_four_fifths_of_its_life(world: World) -> None:
    world.store.put(WANTED, "root", world.now)
    await world.look()
    first = world.token
    world.now += 0.74 * 3600
    await world.look()
    assert world.token == first
    world.now += 0.05 * 3600
    await world.look()
    assert world.token != first
    assert rotates(world.managed().state) < world.managed().state.issued + 0.8 * 3600


async def test_a_failure_shows_and_is_tried_again_with_pauses_that_grow(world: World) -> None:
    world.failure = CallFailed("closed", "the agent is away")
    world.store.put(WANTED, "root", world.now)
    await world.look()
    await world.look()
    assert len(world.calls) == 1
    state = world.managed().state
    assert (state.reason, state.error) == ("Failed", "closed: the agent is away")
    for pause, calls in ((5, 2), (5, 2), (5, 3), (400, 4), (400, 5)):
        world.now += pause
        await world.look()
        assert len(world.calls) == calls
    world.failure = None
    world.now += 400
    await world.look()
    assert world.managed().state.error == ""
    assert [one["status"] for one in conditions(world.managed())] == ["True", "True"]


async def test_a_failed_rotation_keeps_the_token_that_is_still_good(world: World) -> None:
    world.store.put(WANTED, "root", world.now)
    await world.look()
    first = world.token
    world.now += 3000
    world.failure = CallFailed("timeout", "no answer")
    await world.look()
    assert world.token == first
    given, _ = conditions(world.managed())
    assert (given["status"], given["message"]) == ("True", "timeout: no answer")


async def test_a_deletion_takes_the_file_at_once_and_the_account_when_the_agent_is_there(world: World) -> None:
    world.store.put(WANTED, "root", world.now)
    await world.look()
    world.failure = CallFailed("closed", "the agent is away")
    world.store.delete(WANTED.key, "eve", world.now)
    await world.look()
    assert not world.files.path(WANTED).exists()
    assert world.managed().deleted
    world.failure = None
    world.now += 400
    await world.look()
    assert world.store.get(WANTED.key) is None
    assert world.calls[-1] == ("edge", DELETE, {"namespace": "ci", "name": "deployer"})
    event = json.loads(world.lines[-1])
    assert (event["user"]["username"], event["verb"]) == ("eve", "delete")


async def test_a_deletion_does_not_wait_for_the_pause_after_a_failure(world: World) -> None:
    world.failure = CallFailed("closed", "the agent is away")
    world.store.put(WANTED, "root", world.now)
    await world.look()
    world.failure = None
    world.now += 1
    world.store.delete(WANTED.key, "eve", world.now)
    await world.look()
    assert world.store.get(WANTED.key) is None


async def test_a_clock_that_was_set_back_prolongs_no_pause(world: World) -> None:
    world.failure = CallFailed("closed", "the agent is away")
    world.store.put(WANTED, "root", world.now)
    await world.look()
    world.failure = None
    world.now -= 86_400
    world.store.delete(WANTED.key, "eve", world.now)
    await world.look()
    assert world.store.get(WANTED.key) is None


async def test_a_deletion_while_a_token_is_made_wins(world: World) -> None:
    def answer(params: Params) -> Params:
        world.store.delete(WANTED.key, "eve", world.now)
        return world._token(params)

    world.answer = answer
    world.store.put(WANTED, "root", world.now)
    await world.look()
    assert not world.files.path(WANTED).exists()


async def test_a_file_that_is_gone_is_made_again(world: World) -> None:
    world.store.put(WANTED, "root", world.now)
    await world.look()
    world.files.path(WANTED).unlink()
    await world.look()
    assert world.token == f"{SECRET}-2"


async def test_a_removed_clusters_files_go_with_it(world: World) -> None:
    for cluster in ("edge", "gone"):
        world.store.put(Wanted(cluster, "ci", "deployer", "ada", f"{cluster}.token"), "root", world.now)
    await world.look()
    world.keeper.changed(Change.REMOVED, Cluster("edge", "u"))
    await world.look()
    assert [one.wanted.cluster for one in world.store.list()] == ["gone"]
    world.keeper.keep_only(["edge"])
    await world.look()
    assert not world.store.list()
    assert not list((world.directory / "tokens").rglob("*.token"))


async def test_a_cluster_is_cleaned_up_through_its_tunnel_and_what_is_left_is_told(world: World) -> None:
    world.store.put(WANTED, "root", world.now)
    world.store.put(Wanted("edge", "ci", "other", "ada", "other.token"), "root", world.now)
    await world.look()
    world.failure = CallFailed("timeout", "no answer")
    assert [one.wanted.name for one in await world.keeper.clean_up("edge", "root")] == ["deployer", "other"]
    world.failure = None
    assert await world.keeper.clean_up("edge", "root") == ()
    assert not world.store.list()


async def test_a_cluster_that_does_not_answer_holds_up_no_others_clean_up_which_is_begun_once(world: World) -> None:
    for cluster in ("edge", "silent"):
        world.store.put(Wanted(cluster, "ci", "deployer", "ada", f"{cluster}.token"), "root", world.now)
    asked: list[str] = []

    async def call(cluster: str, _method: str, _params: Params) -> Params:
        asked.append(cluster)
        if cluster == "silent":
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)
        return {"deleted": True}

    world.store.delete(("edge", "ci", "deployer"), "root", world.now)
    world.keeper._call = call
    running = asyncio.create_task(world.keeper.run())
    cleaning = asyncio.create_task(world.keeper.clean_up("edge", "root"))
    assert await asyncio.wait_for(cleaning, 1) == ()
    assert sorted(asked) == ["edge", "silent"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"token": 5, "expires": 1_000_600.0}, {"token": "", "expires": 1_000_600.0},
        {"token": "a\n", "expires": 1_000_600.0},
        {"token": "x", "expires": 999_999.0}, {"token": "x", "expires": 1e12}, {"token": "x", "expires": True},
        {"token": "x", "expires": float("nan")}, {"token": "x" * 20_000, "expires": 1_000_600.0},
    ],
)  # fmt: skip
async def test_what_is_no_answer_of_an_agent_is_put_nowhere(answer: dict[str, Any], world: World) -> None:
    world.answer = lambda _params: answer
    world.store.put(WANTED, "root", world.now)
    await world.look()
    assert not world.files.path(WANTED).exists()
    assert "answer" in world.managed().state.error


async def test_one_account_that_fails_keeps_no_other_waiting(world: World) -> None:
    other = Wanted("other", "ci", "deployer", "bob", "deployer.token", (), 1200.0)
    world.store.put(other, "root", world.now)
    world.store.put(WANTED, "root", world.now)

    def answer(params: Params) -> Params:
        if params["seconds"] == 1200:
            raise RuntimeError("a bug")
        return world._token(params)

    world.answer = answer
    await world.look()
    assert world.files.path(WANTED).exists()
    assert "internal error" in world.managed(other).state.error


async def test_its_task_ends_what_is_under_way_when_it_ends(world: World) -> None:
    world.store.put(WANTED, "root", world.now)
    blocked = asyncio.Event()

    async def call(_cluster: str, _method: str, _params: Params) -> Params:
        blocked.set()
        await asyncio.Event().wait()
        return {}

    world.keeper._call = call
    tasks = asyncio.all_tasks()
    running = asyncio.create_task(world.keeper.run())
    await blocked.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert asyncio.all_tasks() <= tasks


# --- files


async def test_nothing_is_followed_out_of_a_holders_directory(world: World) -> None:
    outside = world.directory / "outside"
    outside.write_text("precious")
    await world.files.write(WANTED, "one", world.now)
    path = world.files.path(WANTED)
    for name in (path.name, f".{path.name}.new"):
        (path.parent / name).unlink(missing_ok=True)
        os.symlink(outside, path.parent / name)
    await world.files.write(WANTED, "two", world.now)
    assert outside.read_text() == "precious"
    assert not path.is_symlink()
    await world.files.remove(WANTED)
    assert outside.read_text() == "precious"
    holder = path.parent
    os.symlink(world.directory, holder)
    with pytest.raises(OSError):
        await world.files.write(WANTED, "three", world.now)


async def test_what_is_to_go_into_a_secret_goes_into_no_file(world: World) -> None:
    with pytest.raises(ProjectionError):
        await world.files.write(Wanted("edge", "ci", "x", "ada", secret="apps/x"), "token", world.now)
    assert not [path for path in world.directory.rglob("*") if path.is_file() and path.read_bytes() == b"token"]


async def test_where_a_files_time_is_not_kept_no_token_is_made_at_every_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "utime", lambda *_: None)
    world.store.put(WANTED, "root", world.now)
    await world.look()
    await world.look()
    assert len(world.calls) == 1
    assert not list(world.files.path(WANTED).parent.iterdir()), "nor is it left beside its file"
    state = world.managed().state
    assert state.reason == "ProjectionFailed"
    assert "another serviceAccounts.directory" in state.error


@pytest.mark.parametrize("step", ["utime", "fsync", "replace"])
async def test_a_token_that_does_not_get_to_its_file_is_left_nowhere(
    step: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    await world.files.write(WANTED, "one", world.now)
    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OSError, match="the disk is full"):
        await world.files.write(WANTED, SECRET, world.now)
    path = world.files.path(WANTED)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert path.read_text() == "one"


@pytest.mark.parametrize("holder", ["..", ".", "a/b", "https://login.example#ada", "Équipe", "%2e%2e", "a\\b", "-"])
async def test_each_holder_has_one_directory_of_its_own(holder: str, world: World) -> None:
    wanted = Wanted("edge", "ci", "x", holder, "t")
    await world.files.write(wanted, "token", world.now)
    assert world.files.path(wanted).parent.parent == world.directory / "tokens"
    assert world.files.path(wanted).read_text() == "token"


# --- what may be wanted


@pytest.mark.parametrize(
    "fields",
    [
        {"cluster": "A"}, {"namespace": ""}, {"namespace": "a/b"}, {"name": "a..b"}, {"name": ""}, {"name": "x" * 254},
        {"holder": ""}, {"holder": "a\n"}, {"holder": " a"}, {"holder": "x" * 200}, {"file": "a/b"}, {"file": ".."},
        {"file": ".hidden"}, {"file": ""}, {"file": "x" * 101}, {"lifetime": 60.0}, {"lifetime": 1e6},
        {"lifetime": float("nan")}, {"secret": "apps/x"}, {"file": "", "secret": "x"}, {"file": "", "secret": "Apps/x"},
        {"file": "", "secret": "a/b/c"}, {"audiences": ("",)}, {"audiences": ("x",) * 9},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    good: dict[str, Any] = {"cluster": "e", "namespace": "n", "name": "a", "holder": "h", "file": "f"}
    Wanted(**good)
    with pytest.raises(RegistryError):
        Wanted(**good | fields)


def test_a_holder_is_fixed_and_a_file_is_one_accounts(world: World) -> None:
    world.store.put(WANTED, "root", 1.0)
    for holder, file in (("eve", WANTED.file), ("ada", "other")):
        with pytest.raises(RegistryError, match="delete it first"):
            world.store.put(Wanted("edge", "ci", "deployer", holder, file), "x", 2.0)
    with pytest.raises(RegistryError, match="already"):
        world.store.put(Wanted("edge", "ci", "another", "ada", WANTED.file), "root", 2.0)


def test_another_audience_has_the_token_made_anew_and_the_same_changes_nothing(world: World) -> None:
    managed = world.store.put(WANTED, "root", 1.0)
    world.store.set_state(managed, State(1.0, 5.0, "u", "TokenReported"))
    assert world.store.put(WANTED, "eve", 2.0).state.expires == 5.0
    changed = Wanted("edge", "ci", "deployer", "ada", WANTED.file, ("vault",))
    assert world.store.put(changed, "eve", 2.0).state.expires == 0.0
    with pytest.raises(RegistryError, match="any more"):
        world.store.set_state(managed, State(1.0, 9.0))


def test_all_is_read_again_at_the_next_start(world: World) -> None:
    managed = world.store.put(WANTED, "root", 1.0)
    world.store.set_state(managed, State(1.0, 5.0, "u", "TokenReported"))
    world.store.delete(WANTED.key, "eve", 7.0)
    again = SqliteRegistry(world.directory / "kulvert.db")
    assert ServiceAccountStore(again.database).list() == world.store.list()
    again.close()
    with pytest.raises(RegistryError, match="being deleted"):
        world.store.put(WANTED, "root", 9.0)


@pytest.mark.parametrize(
    ("text", "holder"),
    [("ada", "ada"), ("argocd/server", "system:serviceaccount:argocd:server"), ("https://x/y", "https://x/y"),
     ("ada@x.test", "ada@x.test"), ("a/b/c", "a/b/c")],
)  # fmt: skip
def test_a_holder_may_be_written_as_a_service_account(text: str, holder: str) -> None:
    assert holder_of(text) == holder


def test_what_is_shown_can_be_declared_again(world: World) -> None:
    wanted = Wanted("edge", "ci", "deployer", "ada", "t", ("vault",), 1200.0)
    assert read(shown(world.store.put(wanted, "root", 1.0))) == wanted


@pytest.mark.parametrize(
    "document",
    [
        None, [], {}, {"apiVersion": "v1", "kind": "Secret"},
        {"apiVersion": "kulvert.dev/v1alpha1", "kind": "ManagedServiceAccount"},
        {"apiVersion": "kulvert.dev/v1alpha1", "kind": "ManagedServiceAccount", "metadata": {"name": "a"}, "spec": {}},
        {"apiVersion": "kulvert.dev/v1alpha1", "kind": "ManagedServiceAccount", "metadata": {"name": "a"},
         "spec": {"cluster": "e", "namespace": "n", "holder": "h", "file": "f", "holders": ["x"]}},
        {"apiVersion": "kulvert.dev/v1alpha1", "kind": "ManagedServiceAccount", "metadata": {"name": "a"},
         "spec": {"cluster": "e", "namespace": "n", "holder": "h", "file": "f", "rotation": {"validity": "soon"}}},
    ],
)  # fmt: skip
def test_a_declaration_is_read_strictly(document: object) -> None:
    with pytest.raises(RegistryError):
        read(document)


def _one_of_several(world: World, leads: list[bool], files: FileProjection | None = None) -> ServiceAccountKeeper:
    return ServiceAccountKeeper(
        world.store,
        files or world.files,
        world._call,
        world,
        lambda: "audit-id",
        lambda: world.now,
        leading=lambda: leads[0],
        registered=lambda: [cluster.name for cluster in world.registry.list()],
    )


async def test_of_several_replicas_the_one_that_leads_makes_tokens(world: World) -> None:
    leads = [False]
    world.keeper = _one_of_several(world, leads)
    world.registry.add(Cluster("edge", "u1", 1.0))
    world.store.put(WANTED, "root", world.now)
    await world.look()
    assert not world.calls
    leads[0] = True
    await world.look()
    assert world.token == f"{SECRET}-1"


async def test_one_that_leads_again_has_a_token_made_where_another_has_led_meanwhile(world: World) -> None:
    other = FileProjection(world.directory / "other's")
    first, second = _one_of_several(world, [True]), _one_of_several(world, [True], other)
    world.registry.add(Cluster("edge", "u1", 1.0))
    world.store.put(WANTED, "root", world.now)
    made = []
    for keeper in (first, second, first, first):
        world.keeper = keeper
        world.now += 1000.5
        await world.look()
        made.append(world.token)
    assert made == [f"{SECRET}-1", f"{SECRET}-1", f"{SECRET}-3", f"{SECRET}-3"]
    assert other.path(WANTED).read_text() == f"{SECRET}-2"


async def test_an_account_of_a_cluster_that_came_again_is_not_dropped_by_a_later_leader(world: World) -> None:
    leads = [False]
    world.keeper = _one_of_several(world, leads)
    world.store.put(WANTED, "root", world.now)
    world.keeper.changed(Change.REMOVED, Cluster("edge", "u1"))
    await world.look()
    world.registry.add(Cluster("edge", "u2", 1.0))
    leads[0] = True
    await world.look()
    assert world.token == f"{SECRET}-1"


async def test_a_new_leader_drops_what_was_of_clusters_that_are_gone(world: World) -> None:
    leads = [False]
    world.keeper = _one_of_several(world, leads)
    world.store.put(WANTED, "root", world.now)
    await world.look()
    leads[0] = True
    await world.look()
    await world.look()
    assert world.store.get(WANTED.key) is None
    assert not world.calls
