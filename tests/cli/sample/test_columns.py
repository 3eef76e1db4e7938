"""Cells of tables, and ages as kubectl's users know them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cli.sample.columns import EVENTS, NODES, SERVICES, age
from cli.sample.document import Obj, timestamp

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AGES = [
    (0, "0s"),
    (119, "119s"),
    (120, "2m"),
    (125, "2m5s"),
    (600, "10m"),
    (10799, "179m"),
    (3 * 3600, "3h"),
    (3 * 3600 + 60, "3h1m"),
    (8 * 3600, "8h"),
    (47 * 3600, "47h"),
    (48 * 3600, "2d"),
    (49 * 3600, "2d1h"),
    (8 * 86400, "8d"),
    (729 * 86400, "729d"),
    (730 * 86400, "2y"),
    (731 * 86400, "2y1d"),
]


@pytest.mark.parametrize(("seconds", "text"), AGES)
def test_an_age_has_two_units_while_it_is_small(seconds: int, text: str) -> None:
    assert age(timestamp(NOW - timedelta(seconds=seconds)), NOW) == text


def test_an_age_may_be_unknown() -> None:
    assert age(None, NOW) == "<unknown>"


SERVICE: Obj = {"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", "ports": [{"port": 80}]}}
EVENT: Obj = {"type": "Normal", "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m"}


def test_cells_are_what_kubectl_shows() -> None:
    assert [c.cell(SERVICE, NOW) for c in SERVICES][:4] == ["s", "ClusterIP", "<none>", "80/TCP"]
    assert [c.cell(EVENT, NOW) for c in EVENTS] == ["<unknown>", "Normal", "<none>", "pod/p", "m"]
    assert NODES[1].cell({}, NOW) == "NotReady"
