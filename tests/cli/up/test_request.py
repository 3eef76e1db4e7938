"""What a cluster is called where nobody says."""

from __future__ import annotations

import pytest

from cli.up.request import cluster_name


@pytest.mark.parametrize(
    ("wanted", "context", "sample", "name"),
    [
        ("edge", "x", False, "edge"),
        (None, None, True, "sample"),
        (None, "kind-kind", False, "kind-kind"),
        (None, "arn:aws:eks:eu/x", False, "cluster"),
        (None, None, False, "cluster"),
    ],
)
def test_the_name(wanted: str | None, context: str | None, sample: bool, name: str) -> None:
    assert cluster_name(wanted, context, sample=sample) == name
