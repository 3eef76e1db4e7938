"""Conditions as Kubernetes has them, and gates that let nobody in before they are open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.failures import Refused
from gateway.membership.cluster import TERMINATING, Cluster
from gateway.membership.conditions import (
    AVAILABLE,
    HUB_ACCEPTED,
    JOINED,
    Condition,
    ConditionError,
    Facts,
    check_registered,
    found,
)

NOW = 1000.0
NEW = Cluster("edge")
HELD = Cluster("edge", "u1")
SCANNED = "example.com/Scanned"


def words(cluster: Cluster, facts: Facts) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in found(cluster, facts, NOW)}


def test_a_cluster_comes_in_step_by_step() -> None:
    none = Facts(False, 0, 0)
    assert words(NEW, none) == {
        HUB_ACCEPTED: ("False", "NobodyAsked"),
        JOINED: ("False", "NoCertificate"),
        AVAILABLE: ("Unknown", "NeverJoined"),
    }
    asked = found(NEW, replace(none, asking=("u1",)), NOW)[0]
    assert (asked.reason, "kulvert cluster accept edge" in asked.message) == ("Pending", True)
    assert words(HELD, none)[HUB_ACCEPTED] == ("True", "Accepted")
    assert words(HELD, replace(none, certified=True))[JOINED] == ("True", "CertificateIssued")
    assert words(HELD, Facts(True, 0, 0))[AVAILABLE] == ("False", "NoAgent")
    assert words(HELD, Facts(True, 1, 0, "down"))[AVAILABLE] == ("False", "ApiServerNotReady")
    assert words(HELD, Facts(True, 2, 1))[AVAILABLE] == ("True", "AgentsReady")


def test_a_transition_is_when_the_status_changes_and_not_the_words() -> None:
    first = Condition(SCANNED, "False", "Busy", "", 10.0)
    assert replace(first, message="soon").after(first, 20.0).changed == 10.0
    assert replace(first, status="True").after(first, 20.0).changed == 20.0
    assert first.after(None, 20.0).changed == 20.0
    assert first.shown()["lastTransitionTime"] == "1970-01-01T00:00:10Z"


@pytest.mark.parametrize(
    "fields",
    [("", "True", "R"), ("a b", "True", "R"), ("A/B/C", "True", "R"), ("Ready", "yes", "R"), ("Ready", "True", ""),
     ("Ready", "True", "two words"), ("Ready", "True", "R", "x" * 1025)],
)  # fmt: skip
def test_a_malformed_condition_is_refused(fields: tuple[str, ...]) -> None:
    with pytest.raises(ConditionError):
        Condition(*fields)  # type: ignore[arg-type]  # three or four of the texts


def test_users_are_let_in_once_every_gate_is_true() -> None:
    check_registered(HELD)
    gated = replace(HELD, gates=(AVAILABLE, SCANNED))
    with pytest.raises(Refused) as refused:
        check_registered(gated)
    assert refused.value.failure.code == 503
    assert AVAILABLE in refused.value.detail
    available = Condition(AVAILABLE, "True", "AgentsReady")
    with pytest.raises(Refused) as refused:
        check_registered(replace(gated, conditions=(available, Condition(SCANNED, "False", "Dirty", "two findings"))))
    assert refused.value.detail == f"its gate {SCANNED} is not True (two findings)"
    check_registered(replace(gated, conditions=(available, Condition(SCANNED, "True", "Clean"))))


def test_a_cluster_that_goes_lets_nobody_in() -> None:
    with pytest.raises(Refused) as refused:
        check_registered(replace(HELD, phase=TERMINATING))
    assert refused.value.failure.code == 403


def test_a_cluster_that_its_hub_denies_lets_nobody_in_and_says_so() -> None:
    denied = replace(HELD, denied=True)
    with pytest.raises(Refused) as refused:
        check_registered(denied)
    assert refused.value.failure.code == 403
    assert words(denied, Facts(True, 0, 0))[HUB_ACCEPTED] == ("False", "Denied")


def test_what_another_replica_hears_counts_only_where_no_agent_is_here() -> None:
    elsewhere = Condition(AVAILABLE, "Unknown", "NoHeartbeat")
    assert words(HELD, Facts(True, 0, 0, elsewhere=elsewhere))[AVAILABLE] == ("Unknown", "NoHeartbeat")
    assert words(HELD, Facts(True, 1, 1, elsewhere=elsewhere))[AVAILABLE] == ("True", "AgentsReady")
    assert words(NEW, Facts(False, 0, 0, elsewhere=elsewhere))[AVAILABLE] == ("Unknown", "NeverJoined")
