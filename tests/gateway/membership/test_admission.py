"""Who gets a certificate: by what was accepted, by whom, and never by asking alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.jointoken import StoredJoinToken
from gateway.membership.admission import Asked, Policy, decide
from gateway.membership.cluster import TERMINATING, Cluster
from gateway.membership.enrolments import Choice, State

NOW = 10_000.0
TOKEN = StoredJoinToken("t", b"k", "edge", NOW + 60, created=500.0)
FLEET = StoredJoinToken("f", b"k", "", NOW + 60, created=500.0, labels=(("env", "edge"),))
NEW = Cluster("edge", None, 1.0, (("env", "edge"),))
HELD = replace(NEW, uid="u1", accepted=100.0)
ASKED = Asked("edge", "u1", TOKEN, NEW)
BY_NAME = Policy(["e*"])


def state(asked: Asked, policy: Policy | None = None, now: float = NOW) -> State:
    return decide(asked, policy or Policy(), now).state


def test_a_first_cluster_waits_for_an_administrator_or_a_policy() -> None:
    verdict = decide(ASKED, Policy(), NOW)
    assert (verdict.state, verdict.reason) == (State.PENDING, "pending")
    assert verdict.retry_after
    assert "kulvert cluster accept edge" in verdict.message
    for accepted in (replace(ASKED, choice=Choice.ACCEPTED), replace(ASKED, token=replace(TOKEN, accept=True))):
        verdict = decide(accepted, Policy(), NOW)
        assert (verdict.state, verdict.gives_name) == (State.ACCEPTED, True)
    assert state(ASKED, BY_NAME) is State.ACCEPTED
    assert state(ASKED, Policy(["x*"])) is State.PENDING


def test_replicas_of_an_accepted_cluster_need_nobody() -> None:
    verdict = decide(replace(ASKED, cluster=HELD), Policy(), NOW)
    assert (verdict.state, verdict.gives_name) == (State.ACCEPTED, False)


def test_with_a_token_of_many_hands_a_further_key_waits_whatever_the_policy() -> None:
    """Or one cluster's owner enrols as another cluster, whose id he knows."""
    asked = replace(ASKED, cluster=HELD, token=replace(FLEET, accept=True))
    assert state(asked) is State.PENDING
    assert state(asked, BY_NAME) is State.PENDING
    assert state(replace(asked, enrolled=True)) is State.ACCEPTED
    assert state(replace(asked, choice=Choice.ACCEPTED)) is State.ACCEPTED


@pytest.mark.parametrize(
    ("cluster", "token", "word"),
    [
        (NEW, replace(TOKEN, cluster="other"), "not for cluster"),
        (None, TOKEN, "not registered"),
        (replace(NEW, labels=(("env", "prod"),)), FLEET, "not for cluster"),
        (NEW, replace(FLEET, labels=()), "not for cluster"),
        (replace(HELD, phase=TERMINATING), TOKEN, "being removed"),
    ],
)
def test_a_token_is_good_for_its_own_clusters(cluster: Cluster | None, token: StoredJoinToken, word: str) -> None:
    verdict = decide(replace(ASKED, cluster=cluster, token=token, choice=Choice.ACCEPTED), BY_NAME, NOW)
    assert verdict.state is State.DENIED
    assert word in verdict.message


def test_a_fleet_token_may_bring_a_new_name() -> None:
    assert state(replace(ASKED, cluster=None, token=FLEET)) is State.PENDING
    assert state(replace(ASKED, cluster=None, token=replace(FLEET, accept=True))) is State.ACCEPTED


def test_what_is_used_up_or_denied_is_denied() -> None:
    assert state(replace(ASKED, usable=False), BY_NAME) is State.DENIED
    assert state(replace(ASKED, choice=Choice.DENIED), BY_NAME) is State.DENIED


# --- a second cluster under a name in use

SECOND = replace(ASKED, cluster=HELD, cluster_id="u2", last_connected=NOW - 1000)


def test_a_second_cluster_takes_over_when_the_first_is_gone_and_it_was_accepted() -> None:
    assert state(SECOND) is State.PENDING
    accepted = replace(SECOND, choice=Choice.ACCEPTED)
    assert decide(accepted, Policy(), NOW).gives_name
    there = decide(replace(accepted, last_connected=NOW), Policy(), NOW)
    assert (there.state, there.reason, bool(there.retry_after)) == (State.WAITING, "pending", True)
    assert state(SECOND, BY_NAME) is State.ACCEPTED


def test_a_token_accepts_a_second_cluster_only_if_it_was_made_after_the_first() -> None:
    accepting = replace(TOKEN, accept=True)
    assert state(replace(SECOND, token=replace(accepting, created=HELD.accepted + 1))) is State.ACCEPTED
    assert state(replace(SECOND, token=replace(accepting, created=HELD.accepted))) is State.PENDING
    assert state(replace(SECOND, token=replace(FLEET, accept=True, created=NOW))) is State.PENDING
    assert state(replace(SECOND, token=FLEET), BY_NAME) is State.PENDING


@given(
    choice=st.sampled_from([Choice.NONE, Choice.ACCEPTED]),
    accept=st.booleans(),
    by_name=st.booleans(),
    fleet=st.booleans(),
    gone=st.floats(-1e4, 1e4),
    grace=st.floats(0.1, 1e4),
)
def test_no_name_changes_hands_within_the_grace_period_or_unaccepted(
    choice: Choice, accept: bool, by_name: bool, fleet: bool, gone: float, grace: float
) -> None:
    token = replace(FLEET if fleet else TOKEN, accept=accept)
    asked = replace(SECOND, token=token, choice=choice, last_connected=NOW - gone)
    verdict = decide(asked, Policy(["*"] if by_name else [], grace), NOW)
    accepted = choice is Choice.ACCEPTED or (not fleet and (by_name or accept))
    if verdict.state is State.ACCEPTED:
        assert accepted
        assert NOW - asked.last_connected >= grace
    elif accepted:
        assert verdict.state is State.WAITING
    else:
        assert verdict.state is State.PENDING


def test_what_the_hub_denies_gets_nothing_by_any_way() -> None:
    denied = replace(ASKED, cluster=replace(HELD, denied=True))
    for asked in (denied, replace(denied, enrolled=True), replace(denied, choice=Choice.ACCEPTED)):
        assert state(asked) is State.DENIED
    assert state(replace(denied, token=replace(TOKEN, accept=True)), BY_NAME) is State.DENIED
    assert decide(denied, Policy(), NOW).retry_after == 10, "it may be let in again"
