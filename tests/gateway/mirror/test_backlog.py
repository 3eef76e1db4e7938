"""How much waits to be brought to the hub, and for how long."""

from __future__ import annotations

from gateway.mirror.backlog import Backlog


def test_the_age_is_that_of_the_oldest_and_starts_anew_when_it_is_done() -> None:
    backlog = Backlog()
    assert (backlog.documents, backlog.age(5.0)) == (0, 0.0)
    backlog.looked(2, 7, 10.0)
    backlog.looked(3, 7, 11.0)
    assert (backlog.documents, backlog.age(12.5)) == (3, 2.5)
    backlog.looked(2, 8, 13.0)
    assert backlog.age(13.5) == 0.5
    backlog.looked(0, None, 14.0)
    assert (backlog.documents, backlog.age(99.0)) == (0, 0.0)
