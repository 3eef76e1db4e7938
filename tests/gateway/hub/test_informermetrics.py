"""What Prometheus sees of the informers."""

from __future__ import annotations

from dataclasses import replace

from gateway.hub.informermetrics import InformersCollector
from gateway.metrics import exposition, registry_of
from tests.gateway.hub.scripted_hub import FAST, HANGS, Answer, Scripted, informed, item, page, until

WANTED = """\
kulvert_informer_objects{informer="grants"} 1.0
kulvert_informer_staleness_seconds{informer="grants"} 4.0
kulvert_informer_relists_total{informer="grants"} 1.0
kulvert_informer_differences_total{informer="grants"} 2.0
kulvert_informer_skipped_total{informer="grants"} 2.0
"""


async def test_all_of_an_informer_is_shown_under_its_name() -> None:
    hub = Scripted(
        [page(item("a", 1, "one"), item("bad", 2, 7)), page(item("a", 1, "one"), item("bad", 2, 7))],
        [Answer(), HANGS],
        [page(item("a", 4), item("bad", 5))],
    )
    async with informed(hub, replace(FAST, check=0.0), clock=lambda: 100.0) as (informer, _):
        await until(lambda: len(hub.watched) == 2)
        collector = InformersCollector(lambda: 104.0)
        collector.add("grants", informer)
        text = exposition(registry_of([collector])).decode()
        for line in WANTED.splitlines():
            assert line in text.splitlines(), line


def test_without_informers_there_is_nothing_to_see() -> None:
    assert "informer=" not in exposition(registry_of([InformersCollector(lambda: 0.0)])).decode()
