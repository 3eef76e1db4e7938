"""Two changes of one document become one, and which wins does not depend on luck."""

from __future__ import annotations

from typing import Any

from gateway.mirror.kinds import KINDS, Row, Rows
from gateway.mirror.merge import Merged, merge

KIND = {kind.name: kind for kind in KINDS}
CLUSTER, TOKEN, GRANT = KIND["cluster"], KIND["join-token"], KIND["grant"]
USER, ENROLMENT, REVOKED = KIND["revoked-user"], KIND["enrolment"], KIND["revoked-credential"]


def cluster(created: float = 1.0, certificates: tuple[Row, ...] = (), **fields: Any) -> Rows:
    row = {"name": "alpha", "uid": None, "created": created, "labels": "{}", "accepted": 0.0, "phase": ""} | fields
    made = {"cluster": {("alpha",): row}}
    return {**made, "agent_certificate": {(one["serial"],): one for one in certificates}} if certificates else made


def certificate(serial: str, issued: float, revoked: float | None = None, root: str = "") -> Row:
    return {"serial": serial, "cluster": "alpha", "issued": issued, "revoked": revoked, "root": root}


def single(kind: str, key: tuple[Any, ...], **fields: Any) -> Rows:
    return {KIND[kind].tables[0].name: {key: fields}}


def test_what_one_side_alone_has_changed_counts() -> None:
    base, changed = cluster(), cluster(uid="u")
    assert merge(CLUSTER, base, changed, base) == Merged(changed)
    assert merge(CLUSTER, base, base, changed) == Merged(changed)
    assert merge(CLUSTER, base, None, base) == Merged(None)
    assert merge(CLUSTER, base, base, None) == Merged(None)
    assert merge(CLUSTER, None, changed, None) == Merged(changed)


def test_different_columns_of_one_row_are_merged_and_the_same_one_is_the_hubs() -> None:
    base = cluster()
    merged = merge(CLUSTER, base, cluster(uid="u", accepted=2.0), cluster(phase="Terminating"))
    assert merged == Merged(cluster(uid="u", accepted=2.0, phase="Terminating"))
    assert merge(CLUSTER, base, cluster(uid="ours"), cluster(uid="hub")) == Merged(cluster(uid="hub"), lost=True)


def test_different_rows_are_merged() -> None:
    base = cluster(certificates=(certificate("1", 1.0),))
    ours = cluster(certificates=(certificate("1", 1.0), certificate("2", 2.0)))
    theirs = cluster(uid="u", certificates=(certificate("3", 3.0),))
    both = cluster(uid="u", certificates=(certificate("2", 2.0), certificate("3", 3.0)))
    assert merge(CLUSTER, base, ours, theirs) == Merged(both)


def test_a_deletion_wins_whoever_made_it() -> None:
    base, changed = cluster(), cluster(uid="u")
    assert merge(CLUSTER, base, changed, None) == Merged(None, lost=True)
    assert merge(CLUSTER, base, None, changed) == Merged(None)


def test_a_deleted_row_stays_deleted_whoever_changed_it() -> None:
    base = cluster(certificates=(certificate("1", 1.0),))
    changed = cluster(certificates=(certificate("1", 1.0, revoked=5.0),))
    assert merge(CLUSTER, base, changed, cluster(uid="u")) == Merged(cluster(uid="u"), lost=True)
    assert merge(CLUSTER, base, cluster(uid="u"), changed) == Merged(cluster(uid="u"))


def test_another_cluster_of_the_same_name_is_never_mixed_with_it() -> None:
    base, again = cluster(1.0), cluster(2.0)
    assert merge(CLUSTER, base, cluster(1.0, uid="u"), again) == Merged(again), "ours was of the one that is gone"
    assert merge(CLUSTER, base, again, cluster(1.0, uid="u")) == Merged(again), "and so was theirs"
    assert merge(CLUSTER, base, again, None) == Merged(again)
    assert merge(CLUSTER, base, cluster(3.0), again) == Merged(again, lost=True)
    assert merge(CLUSTER, None, cluster(3.0), again) == Merged(again, lost=True)
    assert merge(CLUSTER, base, None, again) == Merged(again)


def test_what_was_renewed_from_a_certificate_while_another_replica_revoked_it_is_revoked() -> None:
    base = cluster(certificates=(certificate("1", 1.0),))
    renewed = cluster(certificates=(certificate("1", 1.0), certificate("2", 2.0, root="1")))
    revoked = cluster(certificates=(certificate("1", 1.0, revoked=3.0),))
    both = cluster(certificates=(certificate("1", 1.0, revoked=3.0), certificate("2", 2.0, revoked=3.0, root="1")))
    assert merge(CLUSTER, base, renewed, revoked) == Merged(both, lost=True)
    assert merge(CLUSTER, base, revoked, renewed) == Merged(both)


def test_two_revocations_of_one_certificate_are_no_conflict() -> None:
    base = cluster(certificates=(certificate("1", 1.0),))
    early, late = (cluster(certificates=(certificate("1", 1.0, revoked=when),)) for when in (3.0, 4.0))
    assert merge(CLUSTER, base, late, early) == merge(CLUSTER, base, early, late) == Merged(early)


def test_of_two_last_uses_of_a_token_one_is_refused() -> None:
    token = {("t",): {"id": "t", "created": 1.0, "uses": 1}}
    used: list[Rows] = [
        {"join_token": token, "join_token_key": {("t", key): {"token": "t", "fingerprint": key}}} for key in "ab"
    ]
    assert merge(TOKEN, {"join_token": token}, used[0], used[1]) == Merged(used[1], lost=True)


def test_a_grant_is_never_half_of_two_changes() -> None:
    base, ours, theirs = (
        single("grant", ("g",), name="g", created=1.0, spec=spec, labels=labels)
        for spec, labels in (("1", "1"), ("2", "1"), ("1", "2"))
    )
    assert merge(GRANT, base, ours, theirs) == Merged(theirs, lost=True)


def test_what_an_administrator_chose_and_what_the_agent_was_told_are_both_kept() -> None:
    key, names = ("alpha", "u", "f"), {"first": 1.0}
    base, ours, theirs = (
        single("enrolment", key, **names, last=last, choice=choice)
        for last, choice in ((1.0, ""), (61.0, ""), (1.0, "accepted"))
    )
    assert merge(ENROLMENT, base, ours, theirs).rows == single("enrolment", key, **names, last=61.0, choice="accepted")


def test_a_revocation_is_as_strict_as_the_stricter_of_two_and_is_not_tidied_away() -> None:
    key = ("token", "x")
    first, later = (single("revoked-user", ("jane",), user="jane", before=before) for before in (1.0, 2.0))
    assert merge(USER, None, later, first) == merge(USER, None, first, later) == Merged(later)
    assert merge(USER, first, later, None) == Merged(later), "somebody tidied up what was revoked again meanwhile"
    assert merge(USER, first, None, later) == Merged(later)
    ends, never = (single("revoked-credential", key, at=1.0, until=until) for until in (5.0, None))
    assert merge(REVOKED, None, ends, never).rows == merge(REVOKED, None, never, ends).rows == never
