"""What Leases can be set to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stub.leases.settings import LeaseSettings, Timing, identity_problem


def test_what_it_is_without_a_word_can_be() -> None:
    assert list(LeaseSettings().problems()) == []
    assert (LeaseSettings().leader, LeaseSettings().replica) == (Timing(15, 10, 2), Timing(4, 3, 1))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"duration": 10.0}, "longer than its renew deadline"),
        ({"renew_deadline": 2.4}, "renew deadline must be longer than 1.2"),
        ({"retry_period": 0.0}, "above 0"),
        ({"duration": 15.5}, "whole seconds"),
        ({"duration": float("nan")}, "whole seconds"),
        ({"duration": float("inf")}, "whole seconds"),
        ({"replica_duration": 3.0}, "replica's Lease's duration"),
        ({"shards": 0}, "shards must be from 1"),
        ({"shards": 1025}, "shards must be from 1"),
        ({"moving": 0}, "a step must move"),
        ({"step": 0.0}, "a step must move"),
        ({"patience": 2.9}, "patience must be at least"),
        ({"settle": -1.0}, "settle must not be negative"),
        ({"tidy": 1.0}, "tidy must be at least"),
        ({"lease": "Kulvert"}, "name must be"),
    ],
)
def test_what_cannot_be_is_said(change: dict[str, Any], why: str) -> None:
    assert any(why in one for one in replace(LeaseSettings(), **change).problems())


@pytest.mark.parametrize("times", [Timing(15, 10, 2), Timing(4, 3, 1), Timing(2, 1.3, 1)])
def test_two_calls_that_hang_leave_a_holder_in_time(times: Timing) -> None:
    assert 0 < times.patience <= times.retry
    assert times.retry + 2 * times.patience <= times.deadline


@pytest.mark.parametrize("identity", ["kulvert-0", "kulvert-6d5f8b9c4-x2k9p", "a", "a.b"])
def test_a_pods_name_is_an_identity(identity: str) -> None:
    assert identity_problem(identity) is None


@pytest.mark.parametrize("identity", ["", "A", "a_b", "a/b", "-a", "a-", "a" * 201, "a\n"])
def test_another_name_is_none(identity: str) -> None:
    assert "pod's name" in str(identity_problem(identity))
