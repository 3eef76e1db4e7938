"""Several workers' metrics as one text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.workers.exposition import merged


def told(value: int, *, extra: bool = False) -> bytes:
    registry = CollectorRegistry()
    Gauge("plain", "Without labels.", registry=registry).set(value)
    Counter("done", "With some.", ["what"], registry=registry).labels('a "b", c\\d\n} 1').inc(value)
    Histogram("took", "With buckets.", buckets=[1.0], registry=registry).observe(value)
    if extra:
        Gauge("more", "Of one alone.", registry=registry).set(9)
    return generate_latest(registry)


def test_each_sample_says_of_which_worker_it_is_and_each_family_comes_once() -> None:
    text = merged({0: told(1), 2: told(3, extra=True)}).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert text.count("# TYPE plain gauge") == 1
    assert {sample.labels["worker"]: sample.value for sample in families["plain"].samples} == {"0": 1.0, "2": 3.0}
    done = [one for one in families["done"].samples if one.name == "done_total"]
    assert [one.labels for one in done] == [{"worker": n, "what": 'a "b", c\\d\n} 1'} for n in ("0", "2")]
    assert {one.labels["worker"] for one in families["took"].samples} == {"0", "2"}
    assert [(one.labels, one.value) for one in families["more"].samples] == [({"worker": "2"}, 9.0)]


def test_a_worker_that_did_not_answer_is_told_of() -> None:
    text = merged({0: told(1), 1: None}).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    up = families["kulvert_worker_up"].samples
    assert {one.labels["worker"]: one.value for one in up} == {"0": 1.0, "1": 0.0}
