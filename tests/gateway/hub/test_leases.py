"""Leases as objects of the hub: what is written, and what answers of all kinds become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.hub.leases import HubLeases, lease_of, micro_time, seconds
from gateway.hub.objects import Answer, HubObjects, HubUnavailable
from stub.leases.lease import Lease, LeaseConflict, LeasesUnavailable

LEASE = Lease("kulvert", "kulvert-0", 15, 1_700_000_000.25, 1_700_000_002.0, 3, 17, {"peer-address": "10.0.0.1:1"})
OBJECT: dict[str, Any] = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {
        "name": "kulvert",
        "namespace": "kulvert",
        "labels": {"app.kubernetes.io/managed-by": "kulvert", "kulvert.dev/installation": "east"},
        "annotations": {"kulvert.dev/epoch": "17", "kulvert.dev/peer-address": "10.0.0.1:1"},
    },
    "spec": {
        "holderIdentity": "kulvert-0",
        "leaseDurationSeconds": 15,
        "acquireTime": "2023-11-14T22:13:20.250000Z",
        "renewTime": "2023-11-14T22:13:22.000000Z",
        "leaseTransitions": 3,
    },
}
THERE = {**OBJECT, "metadata": {**OBJECT["metadata"], "uid": "u-1", "resourceVersion": "99"}}
READ = replace(LEASE, version="u-1 99")


class Objects(HubObjects):
    """Answers with what it was given, and keeps what it was asked."""

    def __init__(self, *answers: Answer | HubUnavailable) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Mapping[str, Any] | None]] = []

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = "") -> Answer:
        self.asked.append((method, path, body))
        answer = self.answers.pop(0)
        if isinstance(answer, HubUnavailable):
            raise answer
        return answer


def asking(*answers: Answer | HubUnavailable) -> tuple[HubLeases, Objects]:
    objects = Objects(*answers)
    return HubLeases(objects, "kulvert", "east"), objects


async def test_a_new_one_is_posted_as_a_leader_election_record() -> None:
    leases, objects = asking(Answer(201, THERE))
    assert await leases.put(LEASE) == READ
    assert objects.asked == [("POST", "/apis/coordination.k8s.io/v1/namespaces/kulvert/leases", OBJECT)]


async def test_what_is_replaced_is_that_very_object_in_that_very_version() -> None:
    leases, objects = asking(Answer(200, THERE), Answer(200, {}))
    await leases.put(READ)
    await leases.delete(READ)
    (_, path, put), (_, _, deletion) = objects.asked
    assert path == "/apis/coordination.k8s.io/v1/namespaces/kulvert/leases/kulvert"
    assert put == THERE
    assert deletion is not None
    assert deletion["preconditions"] == {"uid": "u-1", "resourceVersion": "99"}


@pytest.mark.parametrize(
    ("lease", "status", "reason"), [(LEASE, 409, "AlreadyExists"), (READ, 409, ""), (READ, 404, "")]
)
async def test_who_came_second_is_told(lease: Lease, status: int, reason: str) -> None:
    leases, _ = asking(Answer(status, {"reason": reason}))
    with pytest.raises(LeaseConflict):
        await leases.put(lease)


async def test_a_deletion_of_what_has_changed_is_a_conflict_and_of_what_is_gone_harmless() -> None:
    leases, _ = asking(Answer(409, {}), Answer(404, {}))
    with pytest.raises(LeaseConflict):
        await leases.delete(READ)
    await leases.delete(READ)


async def test_one_that_is_not_there_is_none() -> None:
    leases, _ = asking(Answer(404, {}), Answer(200, THERE))
    assert await leases.get("kulvert") is None
    assert await leases.get("kulvert") == READ


async def test_all_of_the_installation_are_asked_for_at_once() -> None:
    leases, objects = asking(Answer(200, {"items": [THERE]}))
    assert await leases.list() == [READ]
    selector = "app.kubernetes.io%2Fmanaged-by%3Dkulvert%2Ckulvert.dev%2Finstallation%3Deast"
    assert objects.asked[0][1].partition("?")[2] == f"labelSelector={selector}"


@pytest.mark.parametrize(
    "answer",
    [
        HubUnavailable("the hub does not answer"),
        Answer(500, {}),
        Answer(429, {}),
        Answer(403, {"reason": "Forbidden"}),
        Answer(200, {"items": "none"}),
        Answer(200, {"items": [{"metadata": {"name": "x"}}]}),
        Answer(200, {"items": [7]}),
    ],
)
async def test_what_is_no_answer_is_unavailable(answer: Answer | HubUnavailable) -> None:
    leases, _ = asking(answer)
    with pytest.raises(LeasesUnavailable) as raised:
        await leases.list()
    if isinstance(answer, Answer) and answer.status == 403:
        assert "needs a role for leases" in str(raised.value)


async def test_a_namespace_that_is_missing_is_no_conflict() -> None:
    leases, _ = asking(Answer(404, {"reason": "NotFound"}))
    with pytest.raises(LeasesUnavailable, match="404"):
        await leases.put(LEASE)


@pytest.mark.parametrize(
    ("spec", "annotations"),
    [
        ({}, None),
        (None, {"kulvert.dev/epoch": "-5"}),
        ({"holderIdentity": None, "leaseDurationSeconds": "15", "leaseTransitions": True}, {"kulvert.dev/epoch": "x"}),
        ({"renewTime": "yesterday", "acquireTime": 7, "leaseDurationSeconds": -1}, {"kulvert.dev/epoch": "9" * 19}),
        ([], {"kulvert.dev/epoch": 7}),
    ],
)
def test_what_others_have_made_of_it_reads_as_one_that_nobody_holds(spec: Any, annotations: Any) -> None:
    metadata = {"name": "kulvert", "uid": "u", "resourceVersion": "1", "annotations": annotations}
    assert lease_of({"metadata": metadata, "spec": spec}) == Lease("kulvert", version="u 1")


def test_what_client_go_has_written_is_read() -> None:
    """Without an epoch, and with annotations of others."""
    spec = {"holderIdentity": "x_1", "leaseDurationSeconds": 30, "renewTime": "2023-11-14T22:13:20.000000Z"}
    metadata = {"name": "l", "uid": "u", "resourceVersion": "1", "annotations": {"a": "b"}}
    assert lease_of({"metadata": metadata, "spec": spec}) == Lease("l", "x_1", 30, renewed=1.7e9, version="u 1")


@pytest.mark.parametrize("moment", [0.0, 1_700_000_000.0, 1_700_000_000.000001, 4_000_000_000.5])
def test_times_are_kubernetes_micro_times(moment: float) -> None:
    assert len(micro_time(moment)) == len("2006-01-02T15:04:05.000000Z")
    assert seconds(micro_time(moment)) == pytest.approx(moment, abs=1e-6)
