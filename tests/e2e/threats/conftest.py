"""One server, both real clusters and one recorded API server for all threat tests; every test leaves them in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest

from auth.pki import CertificateAuthority
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import bind, service_account_token
from tests.support.credentials_zoo import HUB_ACCOUNT, Zoo, reported, uid_in
from tests.support.hostile_agent import HostileAgent, attached
from tests.support.hostile_client import HostileClient, connected
from tests.support.hostile_platform import AGENT_TOKEN, RECORDED, ThreatPlatform, server_context
from tests.support.recording_apiserver import Recorded, RecordingApiServer

AGENT = "system:serviceaccount:kulvert:kulvert-agent"


@pytest.fixture(scope="session")
def recorded_ca() -> CertificateAuthority:
    """The CA of the recording API server."""
    return CertificateAuthority.create("recorded CA", time.time())


@pytest.fixture(scope="session")
def recorder(
    recorded_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RecordingApiServer]:
    """The API server of the cluster `recorded`."""
    issued = recorded_ca.issue_server(["127.0.0.1"], time.time(), 86_400)
    with RecordingApiServer(server_context(issued, tmp_path_factory.mktemp("recorder"))) as server:
        yield server


@pytest.fixture(scope="session")
def zoo(
    clusters: tuple[Cluster, Cluster], recorder: RecordingApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Zoo]:
    """The issuers of every kind of credential; alpha is the hub."""
    directory = tmp_path_factory.mktemp("zoo")
    hub = clusters[0]
    with Zoo(directory, directory / "platform" / "state", hub.admin_kubeconfig, hub.files.service_account_key) as made:
        recorder.issuer = made.cluster_keys
        _run(_fill(made, clusters))
        yield made


async def _fill(zoo: Zoo, pair: tuple[Cluster, Cluster]) -> None:
    """With tokens that only an API server makes."""
    hub, other = pair
    for cluster in pair:
        await service_account_token(cluster, "default", HUB_ACCOUNT)
    zoo.hub_uid = uid_in(await service_account_token(hub, "default", HUB_ACCOUNT))
    zoo.hub_tokens = {
        "for the hub itself": await service_account_token(hub, "default", HUB_ACCOUNT),
        "for a vault": await service_account_token(hub, "default", HUB_ACCOUNT, audiences=("vault",)),
        "of another hub": await service_account_token(other, "default", HUB_ACCOUNT, audiences=("kulvert",)),
        "revoked with its account": await service_account_token(hub, "default", "short-lived", audiences=("kulvert",)),
    }
    await hub.api.request("DELETE", "/api/v1/namespaces/default/serviceaccounts/short-lived")
    zoo.hub_stranger = await service_account_token(hub, "default", "stranger", audiences=("kulvert",))
    zoo.foreign_tokens = {one.name: await service_account_token(one, "default", HUB_ACCOUNT) for one in pair}


@pytest.fixture(scope="session")
def threat_platform(
    clusters: tuple[Cluster, Cluster],
    recorder: RecordingApiServer,
    recorded_ca: CertificateAuthority,
    zoo: Zoo,
) -> Iterator[ThreatPlatform]:
    """Kulvert at debug level, with every authenticator, and with alpha, beta and the recorded cluster attached."""
    served = ThreatPlatform(zoo.directory / "platform")
    served.settings |= zoo.settings()
    zoo.prepare()
    try:
        _run(_attach(served, clusters, recorder.port, recorded_ca.certificate_pem))
        yield served
    finally:
        _run(served.stop())


async def _attach(served: ThreatPlatform, pair: tuple[Cluster, Cluster], port: int, ca: bytes) -> None:
    for cluster in pair:
        await bind(cluster, "cluster-admin", group="kulvert:admins")
    await served.start_server()
    for cluster in pair:
        await served.start_agent(cluster)
    await served.start_recorded(RECORDED, port, ca, allowPassThrough=True)
    await reported(served.state / "clusters.db", [RECORDED])


@pytest.fixture(autouse=True)
def _never_as_the_agent(recorder: RecordingApiServer) -> Iterator[None]:
    """The rule above all: whatever a test does, no request reaches an API server unimpersonated, but with a token of
    that cluster's own that a test has passed through.
    """
    before = len(recorder.requests)
    yield
    for one in recorder.requests[before:]:
        if one.all(b"authorization") == [b"Bearer " + AGENT_TOKEN.encode()] or not recorder.passed:
            assert_impersonated(one)
        else:
            assert one.all(b"authorization") == [b"Bearer " + recorder.passed], one.head
            assert b"impersonate" not in one.head.lower()
    recorder.passed = b""


def assert_impersonated(one: Recorded) -> None:
    """Exactly one user, not the agent; the agent's token exactly once, and last but for framing."""
    users = one.all(b"impersonate-user")
    assert len(users) == 1, one.head
    assert users[0], one.head
    assert users[0] != AGENT.encode()
    assert one.all(b"authorization") == [b"Bearer " + AGENT_TOKEN.encode()], one.head


class Connect(Protocol):
    """Connects to the users' door, as admin or somebody else; without a user, without a certificate."""

    def __call__(self, user: str = ..., *groups: str) -> AbstractAsyncContextManager[HostileClient]: ...


@pytest.fixture
def connect(threat_platform: ThreatPlatform) -> Connect:
    """Opens connections to the users' door."""

    def opened(user: str = "ada", *groups: str) -> AbstractAsyncContextManager[HostileClient]:
        tls = threat_platform.context(user, groups or ("kulvert:admins",)) if user else threat_platform.context()
        return connected(threat_platform.port, tls)

    return opened


@pytest.fixture
async def client(connect: Connect) -> AsyncIterator[HostileClient]:
    """A connection as ada, an administrator."""
    async with connect() as opened:
        yield opened


class Attach(Protocol):
    """Attaches a hostile agent, as a cluster of its own; gives its name too."""

    def __call__(self) -> AbstractAsyncContextManager[tuple[HostileAgent, str]]: ...


@pytest.fixture
def attach(threat_platform: ThreatPlatform) -> Attach:
    """Attaches hostile agents."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[HostileAgent, str]]:
        name, token = threat_platform.rogue()
        async with attached(
            threat_platform.agents_port, threat_platform.context(), token, name, f"uid-{name}"
        ) as agent:
            yield agent, name

    return opened


def _run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(work)
