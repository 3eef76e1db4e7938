"""Chaos for half a minute in each mode, by a fixed seed (KULVERT_CHAOS_SEED takes another): what must hold, holds.

`python -m benchmarks.chaos` does the same for as long as one likes.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
from pathlib import Path

import pytest

from tests.e2e.conftest import _bind as bind_admins
from tests.support.chaos import run
from tests.support.chaos_evidence import Evidence, Seen
from tests.support.chaos_faults import NETWORK, PROCESSES, SURROUNDINGS, schedule
from tests.support.chaos_scene import REPLICAS, Scene
from tests.support.cluster import Cluster
from tests.support.installation import forget_installations
from tests.support.netns import why_not

SEEDS = {"standby": 9894, "sharded": 16634}
"""In either, who holds all or most is cut off, frozen or killed for longer than its Lease lasts."""
SECONDS = 30.0
LONGEST = 9.0


@pytest.fixture(scope="module")
def plain(pytestconfig: pytest.Config) -> bool:
    """Whether there are no network namespaces here, which is said aloud."""
    if reason := why_not():
        capture = pytestconfig.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\nCHAOS WITHOUT FAULTS OF THE NETWORK: {reason}")
    return bool(reason)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("mode", [pytest.param("standby", marks=pytest.mark.soak), "sharded"])
async def test_whatever_happens_what_must_hold_holds(
    mode: str, plain: bool, clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    real, hub = clusters
    await bind_admins(clusters)
    await forget_installations(hub)
    seed = int(os.environ.get("KULVERT_CHAOS_SEED", SEEDS[mode]))
    async with Scene(tmp_path / mode, hub, real, mode, plain=plain) as scene:
        found = await run(scene, seed, 1, SECONDS, LONGEST, print)
    assert not found.problems, "\n".join([f"seed {seed}", *found.problems])
    if seed == SEEDS[mode]:
        assert found.holdings > 1, "no cluster changed hands: another seed would show more"


def test_network_faults_are_tried(plain: bool) -> None:
    if plain:
        pytest.skip(f"chaos ran without faults of the network: {why_not()}")


def test_a_seed_says_all_that_happens() -> None:
    agents = ("a", "b")
    once, again = (schedule(7, 600.0, 20.0, agents, plain=False) for _ in range(2))
    assert once == again != schedule(8, 600.0, 20.0, agents, plain=False)
    kinds = {fault.kind for lane in once for fault in lane}
    assert kinds == {*PROCESSES, *NETWORK, *SURROUNDINGS}
    for lane in once:
        assert all(a.at + a.seconds < b.at for a, b in itertools.pairwise(lane)), "one after another"
        assert lane[-1].at + lane[-1].seconds <= 600.0


def test_faults_stop_at_replicas_and_agents_that_there_are() -> None:
    seed = random.Random(1).randrange(1000)
    for lane in schedule(seed, 300.0, 9.0, ("a", "b"), plain=True):
        for fault in lane:
            assert fault.kind not in NETWORK
            assert set(fault.whom) <= {*REPLICAS, "a", "b"}


# --- that a broken invariant would be seen


class Story:
    """Lines as taps and API servers write them."""

    def __init__(self, directory: Path) -> None:
        self._tap = directory / "tap"
        self._record = directory / "record"
        self.evidence = Evidence(("one", "two"), [Seen(self._tap)], {"one": Seen(self._record)})

    def tap(self, *events: tuple[float, str, str, int, str]) -> list[str]:
        """What is wrong with these."""
        self._tap.write_text("".join(json.dumps(event) + "\n" for event in events))
        self.evidence.look(math.inf)
        return self.evidence.problems

    def record(self, *requests: tuple[str, str]) -> list[str]:
        """The same, of what API server `one` got."""
        self._record.write_text("".join(json.dumps([0.0, *request]) + "\n" for request in requests))
        self.evidence.look(math.inf)
        return self.evidence.problems


def test_two_owners_would_be_seen(tmp_path: Path) -> None:
    problems = Story(tmp_path).tap(
        (1.0, "sent", "r0", 7, "/one-a-1"), (2.0, "sent", "r1", 8, "/one-a-2"), (3.0, "sent", "r0", 7, "/one-a-3")
    )
    assert len(problems) == 1
    assert "two owners of one: r0 sent /one-a-3 with epoch 7 after r1 had with 8" in problems[0]


def test_two_replicas_with_one_epoch_would_be_seen(tmp_path: Path) -> None:
    problems = Story(tmp_path).tap((1.0, "sent", "r0", 7, "/one-a-1"), (2.0, "sent", "r1", 7, "/one-a-2"))
    assert problems == ["r1 and r0 both sent to one with epoch 7"]


def test_owners_of_two_clusters_do_not_mind_each_other(tmp_path: Path) -> None:
    assert not Story(tmp_path).tap((1.0, "sent", "r0", 8, "/one-a-1"), (2.0, "sent", "r1", 7, "/two-a-2"))


def test_an_agent_that_goes_back_would_be_seen(tmp_path: Path) -> None:
    sent = [(1.0, "sent", "r0", 7, "/one-a-1"), (2.0, "sent", "r1", 8, "/one-a-2")]
    taken = [(3.0, "taken", "one-0", 8, "/one-a-2"), (4.0, "taken", "one-0", 7, "/one-a-1")]
    problems = Story(tmp_path).tap(*sent, *taken)
    assert problems == ["one-0 took /one-a-1 with epoch 7 after one with 8"]


@pytest.mark.parametrize(("late", "wrong"), [(5.0, 0), (60.0, 1)])
def test_what_was_sent_in_time_may_be_under_way_for_some_seconds(late: float, wrong: int, tmp_path: Path) -> None:
    story = Story(tmp_path)
    sent = [(1.0, "sent", "r0", 7, "/one-a-1"), (2.0, "sent", "r1", 8, "/one-a-2")]
    taken = [(3.0, "taken", "one-1", 8, "/one-a-2"), (1.0 + late, "taken", "one-0", 7, "/one-a-1")]
    assert len(story.tap(*sent, *taken)) == wrong
    assert story.evidence.late == ([] if wrong else [late])


def test_a_request_at_a_wrong_place_would_be_seen(tmp_path: Path) -> None:
    assert Story(tmp_path).tap((1.0, "taken", "two-0", 7, "/one-a-1"))
    assert Story(tmp_path).record(("GET", "/two-a-1"))


def test_writes_are_counted(tmp_path: Path) -> None:
    story = Story(tmp_path)
    assert not story.record(*[("POST", f"/x?fieldManager=one-post-{number}") for number in (1, 1, 2)])
    found = story.evidence.writes({"one-post-1", "one-post-3"}, {"one-post-3"})
    assert [one.partition(" ")[0] for one in found] == ["one-post-1", "one-post-3", "one-post-2"]
