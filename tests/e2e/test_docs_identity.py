"""The worked examples of the pages on identity, run as they stand there (tests/support/doc_examples.py).

As a reader does them: from the first on, so that one may use the files of those before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.dex import Dex
from tests.support.doc_examples import Section, agrees, sections
from tests.support.doc_stage import Stage

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("identity.md", "grants.md", "clusters.md", "audit.md", "operations.md")
SECTIONS = [section for page in PAGES for section in sections(DOCS / page)]


@pytest.fixture(scope="module")
def stage(testbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("docs")
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        edge, hub, dex = Cluster("edge", testbed, directory), Cluster("hub", testbed, directory), Dex(testbed)
        made = Stage(directory, testbed, edge, hub, dex)
        try:
            runner.run(_start(edge, hub, dex))
            runner.run(made.start())
            yield made
        finally:
            runner.run(_stop(made, edge, hub, dex))


async def _start(*parts: Cluster | Dex) -> None:
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part.start())


async def _stop(made: Stage, *parts: Cluster | Dex) -> None:
    await made.stop()
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part.stop())


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.id)
async def test_a_worked_example_does_what_the_page_says(stage: Stage, section: Section) -> None:
    try:
        await stage.run_all(section.steps)
    finally:
        await stage.reset()


def test_the_pages_have_examples_and_a_wrong_answer_is_seen() -> None:
    assert len(SECTIONS) > 25
    assert agrees("a  …  c\n…\nend\n", "a b c\nmore\nlines\nend\n")
    assert not agrees("a … c\n", "a b d\n")
