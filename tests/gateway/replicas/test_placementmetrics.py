"""What Prometheus sees of where agents belong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from gateway.metrics import exposition, registry_of
from gateway.replicas.placementmetrics import PlacementsCollector
from stub.peers.adopt import Adopting
from stub.placements import Placed, Placements

WANTED = """\
kulvert_agent_links_placed_total{link="shared",placed="waiting"} 1.0
kulvert_agent_links_placed_total{link="shared",placed="here"} 2.0
kulvert_agent_links_placed_total{link="own",placed="passed_on"} 1.0
kulvert_agent_links_waiting 3.0
kulvert_agent_links_passed_on 7.0
"""


def test_what_became_of_connections_is_shown_by_their_kind() -> None:
    placements = Placements()
    placements.count({"link": "shared"}, Placed.WAITING)
    for _ in range(2):
        placements.count({"link": "shared"}, Placed.HERE)
    placements.count({"link": "own"}, Placed.PASSED_ON)
    adopting = cast(Adopting, SimpleNamespace(adopted=7))
    text = exposition(registry_of([PlacementsCollector(placements, [1, 2, 3], adopting)])).decode()
    for line in WANTED.splitlines():
        assert line in text.splitlines(), line
