"""A removal as the server does it: through the agent, across failures and restarts, and by force."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from auth.jointoken import StoredJoinToken
from gateway.membership import changes as membership
from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.cluster import TERMINATING, Cluster, Mark
from gateway.membership.registry import RegistryError
from gateway.membership.removal import AGAIN, QUIET, Remover, remove_offline
from gateway.membership.removals import INSTALLED, Removal, Step
from gateway.membership.stores import Stores
from tunnel.calls import CallFailed

NOW = 1000.0


class Agent:
    """Answers as it is told, and notes what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"cluster.cleanup": {}, "cluster.uninstall": {}} | {
            f"cluster.{key}": value for key, value in answers.items()
        }
        self.asked: list[tuple[str, Any]] = []

    async def call(self, method: str, params: dict[str, Any], timeout: float) -> Any:
        self.asked.append((method, params))
        await asyncio.sleep(0)
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """A cluster that has joined, and the removal's wish."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = NOW
        self.agents: list[Agent] = []
        self.stores = Stores.open(path, patience=0.01)
        registry = self.stores.registry
        registry.add(Cluster("edge", "u1", 1.0))
        self.stores.tokens.add(StoredJoinToken("t", b"k", "edge", NOW + 60))
        self.stores.certificates.add(IssuedCertificate("aa", "edge", "u1", "a", "key", NOW, NOW + 60), NOW)
        self.remover = self.made()

    def made(self) -> Remover:
        return Remover(self.stores, lambda _: self.agents, lambda: self.now, lambda _: ("ServiceAccount a/b",))

    async def look(self) -> None:
        """Looks, and lets what it began come to rest."""
        self.remover.look()
        for _ in range(50):
            await asyncio.sleep(0)

    @property
    def waiting(self) -> str:
        found = self.stores.removals.get("edge")
        assert found is not None
        return found.waiting

    @property
    def steps(self) -> list[Step]:
        found = self.stores.removals.get("edge")
        assert found is not None
        return [one.step for one in found.done]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "clusters.db")
    yield made
    made.stores.close()


async def test_an_attached_cluster_goes_to_the_end_and_its_name_is_free(world: World) -> None:
    world.agents = [
        Agent(
            cleanup={
                "deleted": ["ServiceAccount a/b"],
                "left": ["Role a/c (403)", 7, "x\n" * 999],
                "unseen": ["Role: the API server answered 403"],
            }
        )
    ]
    membership.remove(world.stores, "edge", "ada", False, NOW)
    await world.look()
    assert world.steps == list(Step)
    assert [method for method, _ in world.agents[0].asked] == ["cluster.cleanup", "cluster.uninstall"]
    assert world.agents[0].asked[0][1] == {"known": ["ServiceAccount a/b"]}
    stores = world.stores
    assert (stores.registry.list(), stores.tokens.list(), stores.certificates.of("edge")) == ((), (), ())
    removal = stores.removals.get("edge")
    assert removal is not None
    assert removal.left[0] == "Role a/c (403)"
    assert removal.done[1].message == "1 objects deleted, 2 left (the agent may not list Role)"
    assert removal.left[1].isprintable()
    stores.registry.add(Cluster("edge", None, NOW))  # registering it again works


async def test_what_the_server_keeps_up_in_the_cluster_ends_before_the_agent_cleans_up(world: World) -> None:
    """Or it would be made again in between."""
    kept, asked = ["ServiceAccount a/b", "ServiceAccount a/c"], list[tuple[str, str, int]]()

    async def clean(cluster: str, by: str) -> tuple[str, ...]:
        asked.append((cluster, by, len(world.agents[0].asked)))
        kept.remove("ServiceAccount a/b")
        return tuple(kept)

    world.agents = [Agent(cleanup={"deleted": ["ServiceAccount a/c"]})]
    world.remover = Remover(world.stores, lambda _: world.agents, lambda: world.now, lambda _: tuple(kept), clean)
    membership.remove(world.stores, "edge", "ada", False, NOW)
    await world.look()
    assert asked == [("edge", "ada", 0)]
    assert world.agents[0].asked[0] == ("cluster.cleanup", {"known": ["ServiceAccount a/c"]})
    removal = world.stores.removals.get("edge")
    assert removal is not None
    assert removal.left == ()


async def test_users_go_first_and_certificates_stay_while_the_tunnel_is_needed(world: World) -> None:
    membership.remove(world.stores, "edge", "ada", False, NOW)
    await world.look()
    cluster = world.stores.registry.get("edge")
    assert cluster is not None
    assert cluster.phase == TERMINATING
    assert world.stores.certificates.certified("edge", "u1", NOW)
    assert "--force" in world.waiting
    world.agents = [Agent()]
    await world.look()
    assert world.steps == list(Step)


async def test_a_wish_that_was_only_written_down_lets_nobody_in_either(world: World) -> None:
    """The command may have ended between its two writes."""
    world.stores.removals.ask("edge", "ada", False, NOW)
    await world.look()
    cluster = world.stores.registry.get("edge")
    assert cluster is not None
    assert cluster.phase == TERMINATING


async def test_others_are_waited_for_before_the_agent_goes(world: World) -> None:
    world.agents = [Agent()]
    world.stores.registry.mark("edge", Mark.FINALIZER, "example.com/dns")
    membership.remove(world.stores, "edge", "ada", True, NOW)
    await world.look()
    assert "example.com/dns" in world.waiting
    assert [method for method, _ in world.agents[0].asked] == ["cluster.cleanup"]
    world.stores.registry.unmark("edge", Mark.FINALIZER, "example.com/dns")
    await world.look()
    assert world.steps == list(Step)


async def test_an_agent_that_fails_is_asked_again_later(world: World) -> None:
    agent = Agent(cleanup=CallFailed("timeout", "cluster.cleanup: no answer in 60 s"))
    world.agents = [agent]
    membership.remove(world.stores, "edge", "ada", False, NOW)
    await world.look()
    assert "no answer" in world.waiting
    await world.look()
    assert len(agent.asked) == 1
    agent.answers["cluster.cleanup"] = {}
    world.now += AGAIN
    await world.look()
    assert world.steps == list(Step)


async def test_an_agent_that_fails_is_passed_over_by_force_and_what_is_left_is_known(world: World) -> None:
    failed = CallFailed("unknown", "cluster.cleanup is nothing that this side does")
    world.agents = [Agent(cleanup=failed, uninstall=failed)]
    membership.remove(world.stores, "edge", "ada", True, NOW)
    await world.look()
    removal = world.stores.removals.get("edge")
    assert removal is not None
    assert removal.left == ("ServiceAccount a/b", *INSTALLED)
    assert world.steps == list(Step)


async def test_a_server_that_ends_in_the_middle_goes_on_where_it_was(world: World) -> None:
    stuck: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class Stuck(Agent):
        async def call(self, method: str, params: dict[str, Any], timeout: float) -> Any:
            if method == "cluster.uninstall":
                self.asked.append((method, params))
                await stuck
            return await super().call(method, params, timeout)

    world.agents = [Stuck()]
    membership.remove(world.stores, "edge", "ada", False, NOW)
    await world.look()
    assert "uninstall" in world.waiting
    await world.remover.close()
    world.stores.close()
    world.stores = Stores.open(world.path)
    world.agents, world.remover = [], world.made()
    await world.look()
    assert Step.UNINSTALLED not in world.steps  # it may come again in a moment
    world.now += QUIET
    await world.look()
    assert world.steps == list(Step)
    removal = world.stores.removals.get("edge")
    assert removal is not None
    assert set(INSTALLED) <= set(removal.left)


async def test_one_that_said_why_it_could_not_uninstall_itself_is_not_taken_for_gone(world: World) -> None:
    world.agents = [Agent(uninstall=CallFailed("unreachable", "the API server: no answer"))]
    membership.remove(world.stores, "edge", "ada", False, NOW)
    await world.look()
    world.agents = []
    world.now += 10 * QUIET
    await world.look()
    assert Step.UNINSTALLED not in world.steps


async def test_who_was_there_a_moment_ago_is_not_taken_for_gone_however_long_its_call_took(world: World) -> None:
    world.agents = [Agent(uninstall=CallFailed("timeout", "no answer in 60 s"))]
    membership.remove(world.stores, "edge", "ada", False, NOW)
    await world.look()
    world.now += AGAIN - 1
    await world.look()
    world.agents = []
    world.now += QUIET - 1
    await world.look()
    assert Step.UNINSTALLED not in world.steps
    world.now += 1
    await world.look()
    assert world.steps == list(Step)


async def test_a_name_that_was_added_anew_is_not_released_a_second_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends, or its file is busy, when the name is free and that is not written down yet."""
    put = world.stores.removals.put

    def busy(removal: Removal) -> Removal:
        if removal.finished is not None:
            raise RegistryError("try again")
        return put(removal)

    world.agents = [Agent()]
    membership.remove(world.stores, "edge", "ada", False, NOW)
    with monkeypatch.context() as patched:
        patched.setattr(world.stores.removals, "put", busy)
        await world.look()
    assert world.stores.registry.get("edge") is None
    world.stores.registry.add(Cluster("edge", "u2", NOW + 1))
    world.now += AGAIN
    await world.look()
    assert world.steps == list(Step)
    assert world.stores.registry.get("edge") == Cluster("edge", "u2", NOW + 1)


async def test_a_store_that_cannot_be_written_just_now_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.agents = [Agent()]
    membership.remove(world.stores, "edge", "ada", False, NOW)

    def broken(_: Any) -> Any:
        raise RegistryError("try again")

    with monkeypatch.context() as patched:
        patched.setattr(world.stores.removals, "put", broken)
        await world.look()
    world.now += AGAIN
    await world.look()
    assert world.steps == list(Step)


async def test_a_bug_in_a_clean_up_ends_nothing_and_is_told(world: World) -> None:
    broken = [True]

    async def clean(_cluster: str, _by: str) -> None:
        if broken:
            raise KeyError("planted bug")

    world.agents = [Agent()]
    world.remover = Remover(world.stores, lambda _: world.agents, lambda: world.now, clean=clean)
    membership.remove(world.stores, "edge", "ada", False, NOW)
    with capture_logs() as logs:
        await world.look()
    assert "planted bug" in repr(logs)
    broken.clear()
    await world.look()
    assert Step.CLEANED not in world.steps
    world.now += AGAIN
    await world.look()
    assert world.steps == list(Step)


def test_without_a_server_a_forced_removal_is_done_at_once_and_says_what_is_left(world: World) -> None:
    membership.remove(world.stores, "edge", "ada", False, NOW)
    waiting = remove_offline(world.stores, "edge", NOW)
    assert waiting.finished is None
    assert "--force" in waiting.waiting
    membership.remove(world.stores, "edge", "ada", True, NOW)
    done = remove_offline(world.stores, "edge", NOW)
    assert done.finished == NOW
    assert done.left == INSTALLED
    assert world.stores.registry.get("edge") is None


async def test_a_removal_begun_with_another_wish_for_the_name_is_its_own(world: World) -> None:
    membership.remove(world.stores, "edge", "ada", True, NOW)
    remove_offline(world.stores, "edge", NOW)
    world.stores.registry.add(Cluster("edge", "u1", NOW + 1))
    again = membership.remove(world.stores, "edge", "bob", False, NOW + 2)
    assert (again.by, again.force, again.done) == ("bob", False, ())
    assert replace(again, waiting="") == world.stores.removals.get("edge")
