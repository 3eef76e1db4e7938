"""What Prometheus sees of links between replicas, over real ones."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import exposition, registry_of
from gateway.replicas.peermetrics import PeersCollector
from gateway.replicas.routing import RoutedClusters
from stub.errors import Draining, NoAgent
from stub.ownership import Replica
from stub.peers.dial import PeerDialler
from stub.peers.errors import PeerGone
from stub.peers.hello import SESSION, PeerHello, PeerWelcome
from stub.peers.limits import PeerLimits
from tests.stub.peers.replicas import CLUSTER, Server, User, nobody, two, until
from tests.support.owners import Owners
from tunnel.adapter import Carried, LinkConnection
from tunnel.batch import Batch
from tunnel.errors import Hop, Reason
from tunnel.ports import Exchange, RequestBlock, ResponseSink

GET = RequestBlock(b"GET", b"/never", [])


class Waiting:
    """An agent's exchange that has no answer yet."""

    agent = "agent-1"

    def send_data(self, data: bytes) -> bool:
        return True

    def send_end(self, trailers: bytes = b"") -> None: ...

    def consumed(self, count: int) -> None: ...

    def cancel(self, hop: Hop, reason: Reason, message: str) -> None: ...


class Agents:
    """`gateway.clusters.Clusters` of the holder's."""

    def __init__(self) -> None:
        self.there = True

    def open(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        return Waiting() if self.there else nobody(cluster, head, sink)


def shown(server: Server, clusters: RoutedClusters) -> Mapping[str, float]:
    """Samples, by name and the values of their labels."""
    collector = PeersCollector(server.peers, server.door, server.dialler.counts, clusters)
    families = text_string_to_metric_families(exposition(registry_of([collector])).decode())
    samples = [one for family in families for one in family.samples]
    return {" ".join([one.name.removeprefix("kulvert_"), *one.labels.values()]): one.value for one in samples}


async def test_links_exchanges_and_what_was_relayed_are_shown_at_both_ends() -> None:
    agents, owners_r, owners_o = Agents(), Owners("r"), Owners("o")
    owners_r.hold("o")
    owners_o.hold("o")

    def opener(cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        return there.open_here(cluster, head, sink)

    async with two(opener) as (r, o):
        here, there = RoutedClusters(owners_r, agents, r.peers), RoutedClusters(owners_o, agents, o.peers)
        await until(lambda: shown(r, here)["peer_links out own"] > 0)
        before = shown(r, here)
        assert (before["peer_links out session"], before["peer_links in session"]) == (1, 0)
        assert shown(o, there)["peer_links in session"] == 1
        assert before["relayed_exchanges_total out"] == 0
        user = User()
        exchange = here.open(CLUSTER, GET, user)
        await until(lambda: shown(o, there)["peer_exchanges in"] == 1)
        asked, answered = shown(r, here), shown(o, there)
        assert (asked["relayed_exchanges_total out"], asked["relayed_exchanges_total in"]) == (1, 0)
        assert (answered["relayed_exchanges_total out"], answered["relayed_exchanges_total in"]) == (0, 1)
        assert asked["peer_exchanges out"] == 1
        exchange.cancel(Hop.CLIENT, Reason.CANCELLED, "the test ends it")
        await until(lambda: not shown(o, there)["peer_exchanges in"] and not shown(r, here)["peer_exchanges out"])
        assert before["peer_dials_total session"] == 1
        assert before["peer_dial_failures_total session"] == 0


async def test_what_is_not_opened_was_not_relayed() -> None:
    agents, owners = Agents(), Owners("o")
    agents.there = False
    owners.hold("o")
    async with two(nobody) as (r, o):
        clusters = RoutedClusters(owners, agents, o.peers)
        with pytest.raises(NoAgent):
            clusters.open_here(CLUSTER, GET, User())
        owners.hold("r")
        with pytest.raises(Draining):
            clusters.open_here(CLUSTER, GET, User())
        owners.hold("gone")
        with pytest.raises(PeerGone, match="is gone"):
            clusters.open(CLUSTER, GET, User())
        found = shown(r, clusters)
        assert (found["relayed_exchanges_total out"], found["relayed_exchanges_total in"]) == (0, 0)


async def test_dials_that_fail_are_counted_by_what_they_were_for() -> None:
    async with two(nobody) as (r, o):
        port = await closed_port()
        r.peers.tell([r.record, o.record, Replica("x", f"127.0.0.1:{port}")])
        clusters = RoutedClusters(Owners("r"), Agents(), r.peers)
        await until(lambda: shown(r, clusters)["peer_dial_failures_total session"] >= 2)
        found = shown(r, clusters)
        assert found["peer_dials_total session"] >= 3
        assert (found["peer_dials_total adopt"], found["peer_dial_failures_total adopt"]) == (0, 0)
        assert found["peer_links out session"] == 1


async def test_a_dial_that_is_given_up_has_not_failed(tmp_path: Path) -> None:
    dialler = PeerDialler("r", None, Batch(asyncio.get_running_loop().call_soon), PeerLimits())
    tmp_path.chmod(0o700)
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(f"{tmp_path}/o")
    silent.listen()
    hello = PeerHello("r", "o", SESSION)
    task = asyncio.create_task(dialler.dial(Replica("o", f"unix:{tmp_path}/o"), hello, never))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (dialler.counts.begun[SESSION], dialler.counts.failed[SESSION]) == (1, 0)
    silent.close()
    with pytest.raises(OSError):
        await dialler.dial(Replica("o", f"unix:{tmp_path}/nobody"), hello, never)
    assert (dialler.counts.begun[SESSION], dialler.counts.failed[SESSION]) == (2, 1)


def never(_connection: LinkConnection, _welcome: PeerWelcome) -> Carried:
    raise AssertionError


async def closed_port() -> int:
    """One that nobody listens at."""
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
