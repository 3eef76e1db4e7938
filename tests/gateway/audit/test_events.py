"""What a record of the audit log says, and what it never says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.identity import Identity
from gateway.audit.events import RESPONSE_COMPLETE, AuditRecord, Client, blanked
from gateway.audit.lines import Lines, client_parts, plain_line
from tunnel.impersonate import Impersonation
from tunnel.requestinfo import request_info

JANE = Identity("jane", ("dev",), "u1", (("k", ("v",)),), "x509", "X509SHA256=ab", 9e9)
CLIENT = Client(JANE, None, "192.0.2.1", b"kubectl/v1.36", "prod", "agent-1", True, "developers")


def record(
    target: bytes = b"/api/v1/namespaces/a/pods/p", method: str = "GET", client: Client = CLIENT, **changes: Any
) -> AuditRecord:
    path, _, query = target.partition(b"?")
    whole = AuditRecord(
        audit_id="id-1",
        stage=RESPONSE_COMPLETE,
        received=1_800_000_000.000001,
        at=1_800_000_000.5,
        seconds=0.499999,
        info=request_info(method, path, query),
        target=target,
        client=client,
        code=200,
        bytes_received=10,
        bytes_sent=20,
    )
    return whole._replace(**changes)


def read(audit: AuditRecord) -> dict[str, Any]:
    return dict(json.loads(Lines().line(audit)))


def test_a_record_is_an_event_as_kubernetes_writes_them() -> None:
    assert read(record()) == {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": "id-1",
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/a/pods/p",
        "verb": "get",
        "user": {"username": "jane", "groups": ["dev"], "uid": "u1", "extra": {"k": ["v"]}},
        "sourceIPs": ["192.0.2.1"],
        "userAgent": "kubectl/v1.36",
        "objectRef": {"resource": "pods", "namespace": "a", "name": "p", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": "2027-01-15T08:00:00.000000Z",
        "stageTimestamp": "2027-01-15T08:00:00.500000Z",
        "annotations": {
            "kulvert.dev/cluster": "prod",
            "kulvert.dev/agent": "agent-1",
            "kulvert.dev/authenticator": "x509",
            "kulvert.dev/credential": "X509SHA256=ab",
            "kulvert.dev/bytes-received": "10",
            "kulvert.dev/bytes-sent": "20",
            "kulvert.dev/duration": "0.499999",
            "kulvert.dev/decision": "allow",
            "kulvert.dev/rule": "developers",
        },
    }


def test_a_stranger_has_no_name_and_a_denial_has_its_reason() -> None:
    event = read(record(client=Client(source_ip="192.0.2.1"), code=401, reason="expired"))
    assert event["user"] == {}
    assert event["annotations"]["kulvert.dev/decision"] == "forbid"
    assert event["annotations"]["kulvert.dev/reason"] == "expired"
    assert {"kulvert.dev/agent", "kulvert.dev/credential"}.isdisjoint(event["annotations"])


def test_whom_the_cluster_saw_is_recorded_beside_the_user() -> None:
    event = read(record(client=CLIENT._replace(seen=Impersonation("bob", ("qa",)))))
    assert event["user"]["username"] == "jane"
    assert event["impersonatedUser"] == {"username": "bob", "groups": ["qa"]}


def test_exec_is_recorded_by_its_meaning() -> None:
    event = read(record(b"/api/v1/namespaces/a/pods/p/exec?command=ls&stdin=true", recording="id-1.cast"))
    assert (event["verb"], event["objectRef"]["subresource"]) == ("create", "exec")
    assert event["requestURI"].endswith("?command=ls&stdin=true")
    assert event["annotations"]["kulvert.dev/recording"] == "id-1.cast"
    assert event["annotations"]["kulvert.dev/interactive"] == "true"
    assert "kulvert.dev/interactive" not in read(record())["annotations"]


@pytest.mark.parametrize(
    ("target", "upgrade", "stream"),
    [
        (b"/api/v1/pods", False, None),
        (b"/api/v1/pods?watch=true", False, "watch"),
        (b"/api/v1/namespaces/a/pods/p/log", False, None),
        (b"/api/v1/namespaces/a/pods/p/log?follow=true", False, "log-follow"),
        (b"/api/v1/namespaces/a/pods/p/exec?command=ls", True, "exec"),
        (b"/api/v1/namespaces/a/pods/p/attach", True, "attach"),
        (b"/api/v1/namespaces/a/pods/p/portforward", True, "portforward"),
        (b"/api/v1/namespaces/a/services/s/proxy/", False, "proxy"),
        (b"/api/v1/namespaces/a/services/s/proxy/", True, "proxy"),
        (b"/api/v1/nodes/n/proxy/exec/a/p/c", True, "proxy"),
        (b"/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/v/vnc", True, "upgrade"),
    ],
)
def test_the_kind_of_stream_is_told(target: bytes, upgrade: bool, stream: str | None) -> None:
    assert read(record(target, upgrade=upgrade))["annotations"].get("kulvert.dev/stream") == stream


def test_other_requests_have_no_object() -> None:
    assert "objectRef" not in read(record(b"/version"))


@pytest.mark.parametrize(
    "query",
    [
        b"token=planted",
        b"access_token=planted&limit=5",
        b"limit=5&Authorization=planted",
        b"to%6ben=planted",
        b"Watch=planted",
        b"watch=1;token=planted",
        b"x=planted=planted",
        b"sig=planted&sig=planted",
        b"a?token=planted",
        b"=planted",
    ],
)
def test_secrets_in_the_query_are_blanked(query: bytes) -> None:
    shown = blanked(b"/api/v1/pods?" + query)
    assert "planted" not in shown
    assert "***" in shown


def test_kubernetes_own_parameters_stay() -> None:
    target = b"/api/v1/pods?labelSelector=a%3Db&watch=true&resourceVersion=1&fieldSelector=metadata.name%3Dx"
    assert blanked(target) == target.decode()


def test_what_clients_may_make_long_is_cut() -> None:
    long = record(b"/" + b"x" * 100_000, client=CLIENT._replace(user_agent=b"y" * 100_000))
    assert len(Lines().line(long)) < 12_000


TEXTS = st.text(st.characters(codec=None), max_size=20)
USERS = st.builds(Identity, st.text(), st.tuples(st.text()), st.text(), st.just(()), TEXTS, st.text(), st.just(9e9))
CLIENTS = st.builds(
    Client,
    st.none() | USERS,
    st.none() | st.builds(Impersonation, TEXTS, st.tuples(TEXTS), TEXTS, st.just((("k", ("v",)),))),
    TEXTS, st.binary(max_size=30), TEXTS, TEXTS, st.booleans(), TEXTS, st.booleans(),
)  # fmt: skip
RECORDS = st.builds(
    record,
    st.binary(max_size=60).map(lambda rest: b"/" + rest)
    | st.sampled_from([b"/api/v1/namespaces/a/pods/p/exec?tty=true", b"/api/v1/pods?watch=1", b"/version"]),
    st.sampled_from(["GET", "POST", "OPTIONS"]),
    CLIENTS,
    received=st.floats(0, 4e9), at=st.floats(0, 4e9), seconds=st.floats(0, 1e6), code=st.integers(100, 599),
    bytes_received=st.integers(0), bytes_sent=st.integers(0), upgrade=st.booleans(), reason=TEXTS, recording=TEXTS,
)  # fmt: skip


@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_the_fast_line_says_the_same_as_the_plain_one_whatever_it_holds(records: list[AuditRecord]) -> None:
    lines = Lines()
    for one in [*records, *records]:  # from memory, too
        for line in (lines.line(one), lines.line(one, client_parts(one.client))):
            assert line.count(b"\n") == 1
            assert line.endswith(b"\n")
            assert json.loads(line) == json.loads(plain_line(one))
    assert lines.failed == 0


def test_a_name_that_json_cannot_hold_is_escaped() -> None:
    bad = Impersonation("a\ud800", ("g\udfff",), "", (("k\ud800", ("v\ud800",)),))
    event = read(record(client=CLIENT._replace(seen=bad, rule="r\ud800")))
    assert event["impersonatedUser"] == {
        "username": "a\\ud800",
        "groups": ["g\\udfff"],
        "extra": {"k\\ud800": ["v\\ud800"]},
    }
    assert event["annotations"]["kulvert.dev/rule"] == "r\\ud800"


def test_a_record_that_cannot_be_written_down_leaves_its_id_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines()
    event = json.loads(lines.line(record(client=CLIENT._replace(user_agent=None))))  # type: ignore[arg-type] # a bug
    assert event["auditID"] == "id-1"
    assert lines.failed == 1
    assert "cannot be written down" in caplog.text


def test_memory_tells_requests_apart_that_differ_in_one_thing() -> None:
    lines = Lines()
    target = b"/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/v/vnc"
    asked = [record(target, method, upgrade=upgrade) for method in ("GET", "PUT") for upgrade in (True, False)]
    for one in [*asked, *asked]:
        assert json.loads(lines.line(one)) == json.loads(plain_line(one))


def test_what_is_remembered_is_bounded() -> None:
    lines = Lines()
    for number in range(3000):
        lines.line(record(b"/api/v1/namespaces/a/pods/p%d" % number))
    lines.line(record(b"/" + b"x" * 2000))
    assert len(lines._requests) <= 1024
    assert max(len(target) for _, target, _ in lines._requests) <= 512
