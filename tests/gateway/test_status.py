"""Kulvert's own failures, as kubectl will read them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import status as module
from gateway.status import FAILURES, NO_AGENT, Failure, needs_warning, status, warning

# What client-go's errors.ReasonForError and apimachinery know, with the code that each reason stands for.
KUBERNETES = {
    "Unauthorized": {401},
    "Forbidden": {403},
    "NotFound": {404},
    "Conflict": {409},
    "BadRequest": {400, 414, 431},
    "RequestEntityTooLarge": {413},
    "TooManyRequests": {429},
    "InternalError": {500, 502},
    "ServiceUnavailable": {503},
    "Timeout": {408, 504},
}


def read(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body))


def test_a_failure_is_a_v1_status_that_names_its_hop_and_audit_id() -> None:
    assert read(NO_AGENT.body("id-1", "prod", retry_after=2)) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "No agent of cluster prod is connected to Kulvert; "
        "check the agent's pod and its way out of that cluster",
        "reason": "ServiceUnavailable",
        "details": {
            "causes": [{"reason": "Hop", "message": "stub"}, {"reason": "AuditID", "message": "id-1"}],
            "retryAfterSeconds": 2,
        },
        "code": 503,
    }


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: str(failure.message[:40]))
def test_every_failure_says_who_failed_with_a_reason_that_clients_know(failure: Failure) -> None:
    assert failure.code in KUBERNETES[failure.reason]
    assert failure.hop in ("gateway", "stub", "agent", "apiserver")
    assert failure.message.startswith(("Kulvert's gateway", "No agent", "The agent", "The API server"))
    body = read(failure.body("id", "DETAIL"))
    assert body["code"] == failure.code
    assert "{}" not in body["message"]
    assert ("DETAIL" in body["message"]) == ("{}" in failure.message)
    assert "retryAfterSeconds" not in body["details"]


def test_the_table_lists_every_failure() -> None:
    named = [value for value in vars(module).values() if isinstance(value, Failure)]
    assert sorted(map(repr, named)) == sorted(map(repr, FAILURES))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: str(failure.message[:40]))
def test_a_retry_is_offered_only_where_nothing_left_the_stub(failure: Failure) -> None:
    if failure.retryable:
        assert failure.code in (429, 503)
        assert read(failure.body("id", "x", 1))["details"]["retryAfterSeconds"] == 1
    else:
        with pytest.raises(ValueError, match="Retry-After"):
            failure.body("id", "x", 1)


@given(st.text(max_size=3000))
def test_a_peers_words_are_cut_and_cleaned(text: str) -> None:
    message = read(status(502, "InternalError", text, "agent", "id"))["message"]
    assert len(message) <= 1024
    assert message.isprintable()


def test_braces_in_a_detail_are_only_text() -> None:
    assert "{0.__class__}" in read(NO_AGENT.body("id", "{0.__class__}"))["message"]


def test_a_warning_carries_the_message_where_kubectl_reads_no_status() -> None:
    assert warning(NO_AGENT.text("prod")).startswith(b'299 - "No agent of cluster prod is connected')
    assert warning('a "b" \\') == b'299 - "a \\"b\\" \\\\"'


@given(st.text(max_size=3000))
def test_a_warning_is_one_header_value(text: str) -> None:
    value = warning(text)
    assert value.startswith(b'299 - "')
    assert value.endswith(b'"')
    assert all(32 <= byte < 127 for byte in value)
    inner = value[7:-1].replace(b"\\\\", b"").replace(b'\\"', b"")
    assert b'"' not in inner
    assert not inner.endswith(b"\\")


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        (b"/api", True),
        (b"/apis", True),
        (b"/apis/apps/v1", False),
        (b"/version", True),
        (b"/apis/authentication.k8s.io/v1/selfsubjectreviews", True),
        (b"/apis/authentication.k8s.io/v1/tokenreviews", False),
        (b"/openapi/v3", True),
        (b"/api/v1/pods", False),
        (b"/apis/apps/v1/deployments", False),
        (b"/apiserver", False),
    ],
)
def test_only_discovery_needs_the_warning(path: bytes, needed: bool) -> None:
    assert needs_warning(path) == needed
