"""Where exchanges are opened, and what is found out anew of a head that another replica sends."""

from __future__ import annotations

import pytest

from gateway.replicas.routing import RoutedClusters
from stub.errors import Draining, NoAgent, Unheld
from tests.stub.peers.replicas import CLUSTER, User, nobody
from tests.support.owners import Owners
from tunnel.ports import Exchange, RequestBlock, ResponseSink

PODS = b"/api/v1/namespaces/a/pods"
READ = RequestBlock(b"GET", PODS, [])


class Here:
    """This replica's sessions, without agents: notes what they are asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, RequestBlock]] = []

    def open(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        self.asked.append((cluster, head))
        return nobody(cluster, head, sink)


class Others:
    """The other replicas: note what they are asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, RequestBlock]] = []

    def open(self, replica: str, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        self.asked.append((replica, cluster, head))
        return nobody(cluster, head, sink)


class World:
    """One of two replicas."""

    def __init__(self) -> None:
        self.owners, self.here, self.others = Owners("one"), Here(), Others()
        self.clusters = RoutedClusters(self.owners, self.here, self.others)


@pytest.fixture
def world() -> World:
    return World()


def test_what_is_held_here_is_opened_here(world: World) -> None:
    world.owners.hold("one")
    with pytest.raises(NoAgent):
        world.clusters.open(CLUSTER, READ, User())
    assert (world.here.asked, world.others.asked) == ([(CLUSTER, READ)], [])


def test_what_another_holds_is_opened_there(world: World) -> None:
    world.owners.hold("two")
    with pytest.raises(NoAgent):
        world.clusters.open(CLUSTER, READ, User())
    assert (world.here.asked, world.others.asked) == ([], [("two", CLUSTER, READ)])


def test_what_nobody_holds_is_opened_nowhere(world: World) -> None:
    with pytest.raises(Unheld):
        world.clusters.open(CLUSTER, READ, User())
    assert not world.here.asked + world.others.asked


@pytest.mark.parametrize("holder", ["two", ""])
def test_what_another_replica_asks_for_is_opened_here_or_nowhere(world: World, holder: str) -> None:
    world.owners.hold(holder)
    with pytest.raises(Draining):
        world.clusters.open_here(CLUSTER, READ, User())
    assert not world.here.asked + world.others.asked


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (RequestBlock(b"GET", PODS, []), True),
        (RequestBlock(b"GET", PODS + b"?limit=5", []), True),
        (RequestBlock(b"GET", PODS + b"?watch=1", [], long=True), False),
        (RequestBlock(b"POST", PODS, []), False),
        (RequestBlock(b"GET", PODS, [], ended=False), False),
        (RequestBlock(b"GET", PODS + b"/p/exec", [], ended=False, upgrade=True), False),
        (RequestBlock(b"DELETE", PODS, [], repeatable=True), False),
    ],
    ids=["read", "page", "watch", "write", "body", "exec", "a word that does not travel"],
)
def test_whether_it_may_be_asked_twice_is_found_out_here(world: World, head: RequestBlock, expected: bool) -> None:
    world.owners.hold("one")
    with pytest.raises(NoAgent):
        world.clusters.open_here(CLUSTER, head, User())
    assert world.here.asked[0][1].repeatable is expected
