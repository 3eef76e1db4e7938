"""Which requests are asked twice, by the table: reads of objects and of the API's own documents, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.passage import Passage
from gateway.retry import may_retry, repeatable
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.ports import RequestBlock
from tunnel.requestinfo import request_info

POD = "/api/v1/namespaces/default/pods/web"
AGAIN = {Reason.LINK_LOST, Reason.UNACKNOWLEDGED, Reason.DRAINING, Reason.STALE_EPOCH}


def block(line: str = f"GET {POD}", ended: bool = True, upgrade: bool = False) -> RequestBlock:
    """A head, of which it is known whether it may be asked twice."""
    method, target = line.split(" ")
    made = RequestBlock(method.encode(), target.encode(), [], ended, upgrade=upgrade)
    path, _, query = made.target.partition(b"?")
    made.repeatable = repeatable(made, request_info(method, path, query))
    return made


def passage(line: str = f"GET {POD}", **more: Any) -> Passage:
    """As much of one as the decision looks at."""
    values = {"block": block(line), "tries": 1, "answered": False} | more
    return cast(Passage, SimpleNamespace(**values))


def lost(reason: Reason = Reason.LINK_LOST) -> ExchangeReset:
    return ExchangeReset(Hop.STUB, reason, "lost")


@pytest.mark.parametrize(
    "line",
    [
        f"GET {POD}",
        f"HEAD {POD}",
        "GET /api/v1/pods",
        "GET /apis/apps/v1/deployments?limit=500&labelSelector=a",
        f"GET {POD}/status",
        "GET /version",
        "GET /openapi/v3",
    ],
)
def test_get_and_list_are(line: str) -> None:
    assert may_retry(passage(line), lost())


@pytest.mark.parametrize(
    "line",
    [
        "GET /api/v1/pods?watch=true",
        "GET /api/v1/watch/pods",
        "GET /api/v1/pods?watch=1&fieldSelector=metadata.name%3Dweb",
        f"GET {POD}/log",
        f"GET {POD}/log?follow=true",
        f"GET {POD}/exec?command=sh",
        f"GET {POD}/attach",
        f"GET {POD}/portforward",
        f"GET {POD}/proxy/",
        f"GET {POD}/proxy",
        "GET /api/v1/proxy/namespaces/default/pods/web/",
        "GET /api/v1/nodes/n/proxy/pods",
        "GET /apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm/vnc",
        "GET /debug/pprof/profile",
        "HEAD /version",
        f"POST {POD}",
        f"PUT {POD}",
        f"PATCH {POD}",
        f"DELETE {POD}",
        "DELETE /api/v1/namespaces/default/pods",
        "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        f"POST {POD}/eviction",
        "OPTIONS /api",
    ],
)
def test_nothing_else_is(line: str) -> None:
    assert not may_retry(passage(line), lost())


@pytest.mark.parametrize(
    "case",
    [
        passage(block=block(ended=False)),
        passage(block=block(ended=False, upgrade=True)),
        passage(block=block(upgrade=True)),
        passage(tries=2),
        passage(answered=True),
        passage(block=None),
    ],
    ids=["body", "upgrade", "upgrade without more", "second time", "answer begun", "nothing decided"],
)
def test_nor_is_a_read_that(case: Passage) -> None:
    assert not may_retry(case, lost())


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_only_the_loss_of_an_agent_is_a_reason(reason: Reason) -> None:
    """What the API server did, or another agent would do, too, is none."""
    assert may_retry(passage(), lost(reason)) is (reason in AGAIN)


def test_what_may_be_asked_twice_is_known_before_anything_is_lost() -> None:
    assert block().repeatable
    assert not block(f"DELETE {POD}").repeatable
