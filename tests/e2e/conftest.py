"""Two real clusters for all end-to-end tests, and a loud word where there can be none.

The programs come from the cache that `make testbed` fills; KULVERT_TESTBED_BUILD=1 has them built here.
Without them the tests are skipped on a developer's machine, and fail where CI is set.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import bind
from tests.support.platform import Platform
from tests.testbed import BedError
from tests.testbed.build import ensure
from tests.testbed.place import locate

HERE = Path(__file__).parent
NO_BED = "no test bed"
REASON = pytest.StashKey[str]()
BINARIES = pytest.StashKey[Path]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what is in this directory, and finds the programs while no test's timeout runs."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.e2e)
    if ours and not config.option.collectonly:
        _find_programs(config)


def _find_programs(config: pytest.Config) -> None:
    capture = config.pluginmanager.getplugin("capturemanager")
    building = os.environ.get("KULVERT_TESTBED_BUILD") == "1"
    try:
        with capture.global_and_fixture_disabled():
            config.stash[BINARIES] = ensure(os.environ) if building else locate(os.environ)
    except BedError as error:
        config.stash[REASON] = str(error)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A skip must not look like a success. What workers of xdist know, their reports alone tell."""
    skipped = (report.longrepr[-1] for report in terminalreporter.stats.get("skipped", ()))
    if reason := next((told for told in skipped if NO_BED in told), None):
        terminalreporter.section("END-TO-END TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.line(reason)


@pytest.fixture(scope="session")
def testbed(request: pytest.FixtureRequest) -> Path:
    """The directory of the test bed's programs."""
    if reason := request.config.stash.get(REASON, None):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{NO_BED}: {reason}")
    return request.config.stash[BINARIES]


@pytest.fixture(scope="session")
def clusters(testbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Cluster]]:
    """Two clusters, alpha and beta, for the whole session: tests leave them as they found them."""
    parent = tmp_path_factory.mktemp("clusters")
    pair = (Cluster("alpha", testbed, parent), Cluster("beta", testbed, parent))
    try:
        _run(_start(pair))
        yield pair
    finally:
        _run(_stop(pair))
    left = [f"{name} of {cluster.name}" for cluster in pair for name in cluster.running]
    assert not left, f"still running: {left}"


@pytest.fixture(scope="session")
def cluster_a(clusters: tuple[Cluster, Cluster]) -> Cluster:
    """The cluster alpha."""
    return clusters[0]


@pytest.fixture(scope="session")
def cluster_b(clusters: tuple[Cluster, Cluster]) -> Cluster:
    """The cluster beta."""
    return clusters[1]


@pytest.fixture(scope="session")
def platform(clusters: tuple[Cluster, Cluster], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Kulvert with both clusters attached, and `kulvert:admins` bound to cluster-admin, for the whole session."""
    served = Platform(tmp_path_factory.mktemp("kulvert") / "platform")
    try:
        _run(_attach(served, clusters))
        yield served
    finally:
        _run(served.stop())


@pytest.fixture
async def own_platform(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> AsyncIterator[Platform]:
    """A server of a test's own, to be stopped and killed; the test attaches agents by itself."""
    await _bind(clusters)
    async with Platform(tmp_path / "platform") as served:
        yield served


async def _attach(served: Platform, pair: tuple[Cluster, Cluster]) -> None:
    await _bind(pair)
    await served.start_server()
    for cluster in pair:
        await served.start_agent(cluster)


async def _bind(pair: tuple[Cluster, Cluster]) -> None:
    for cluster in pair:
        if not (cluster.directory / "admins-bound").exists():
            await bind(cluster, "cluster-admin", group="kulvert:admins")
            (cluster.directory / "admins-bound").touch()


async def _start(pair: tuple[Cluster, Cluster]) -> None:
    async with asyncio.TaskGroup() as group:
        for cluster in pair:
            group.create_task(cluster.start())


async def _stop(pair: tuple[Cluster, Cluster]) -> None:
    async with asyncio.TaskGroup() as group:
        for cluster in pair:
            group.create_task(cluster.stop())


def _run(work: Coroutine[Any, Any, None]) -> None:
    """In a loop of its own that leaves the tests' loops alone; clusters are bound to none."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(work)
