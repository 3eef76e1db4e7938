"""The scale benchmark, with few agents: that it measures what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import user_tls
from benchmarks.load import Target, run
from benchmarks.scale_probe import Probe
from benchmarks.scale_registry import Records, measure
from benchmarks.scale_report import Bar, Report, Step, slope
from benchmarks.scale_scene import Scene, cluster_name

AGENTS = 50


async def test_agents_attach_answer_and_come_back_after_the_server_was_killed(tmp_path: Path) -> None:
    async with Scene(tmp_path, AGENTS + 10, AGENTS) as scene:
        await scene.agents.tell(start=(0, AGENTS))
        await scene.agents.until(lambda state: state["attached"] == AGENTS, 10.0)
        assert scene.usage().fds >= AGENTS
        paths = [f"/clusters/{cluster_name(n)}/api/v1/pods?bytes=3000" for n in range(AGENTS)]
        target = Target(scene.platform.url, user_tls(scene.platform), paths=paths)
        result = await run(target, 4, 2 * AGENTS)
        assert len(result.latencies) == 2 * AGENTS
        await scene.agents.tell(want=(0, 2))
        await scene.agents.until(lambda state: state["own"] == 4, 5.0)
        await scene.restart()
        await scene.agents.until(lambda state: state["attached"] == AGENTS, 15.0)
        probe = await Probe(target).last(0.3)
        assert probe.latencies
        assert not probe.failed
        await scene.agents.tell(stop=(0, AGENTS - 1))
        await scene.agents.until(lambda state: state["attached"] == 1, 5.0)


async def test_records_are_read_and_found(tmp_path: Path) -> None:
    found = await measure("registry", 200, str(tmp_path))
    assert (found.store, found.count) == ("registry (SQLite)", 200)
    assert 0 < found.lookup_ns < 1e6


def test_the_fitted_line() -> None:
    assert slope([(100, 110.0), (200, 210.0), (300, 310.0)]) == pytest.approx(1.0)
    assert slope([(1, 5.0)]) == 0.0


def test_one_figure_beyond_its_bar_fails_the_whole() -> None:
    report = Report(steps=[Step(1, 2.0, 3.0, 4.0, 5.0, 6)], records=[Records("r", 1, 0.1, 2.0, 3.0)])
    report.bar("a", 1.0, 1.0)
    assert report.passed
    report.bar("b", 1.1, 1.0)
    assert not report.passed
    document = report.document()
    assert [bar["passed"] for bar in document["bars"]] == [True, False]
    assert document["steps"][0]["agents"] == 1
    assert Bar("c", 0.0, 0.0).passed
