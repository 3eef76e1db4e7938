"""The audit log: what it says, what it never says, and what happens when it cannot be written."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.identity import Identity
from gateway.audit import AuditIds, AuditLog
from gateway.auditevents import RESPONSE_COMPLETE, AuditRecord, blanked, line
from gateway.auditsinks import DescriptorSink, FileSink
from gateway.requestinfo import request_info
from tunnel.impersonate import Impersonation

JANE = Identity("jane", ("dev",), "u1", (("k", ("v",)),), "x509", "X509SHA256=ab", 9e9)


def record(target: bytes = b"/api/v1/namespaces/a/pods/p", **changes: Any) -> AuditRecord:
    path, _, query = target.partition(b"?")
    whole = AuditRecord(
        audit_id="id-1",
        stage=RESPONSE_COMPLETE,
        received=1_800_000_000.000001,
        at=1_800_000_000.5,
        info=request_info("GET", path, query),
        target=target,
        identity=JANE,
        impersonated=None,
        source_ip="192.0.2.1",
        user_agent=b"kubectl/v1.36",
        code=200,
        cluster="prod",
        agent="agent-1",
        bytes_received=10,
        bytes_sent=20,
        allowed=True,
        rule="developers",
        reason="",
    )
    return whole._replace(**changes)


def read(audit: AuditRecord) -> dict[str, Any]:
    return dict(json.loads(line(audit)))


class Disk:
    """A sink that can be full, slow or broken."""

    def __init__(self) -> None:
        self.data = b""
        self.takes: int | None = None
        self.broken = False
        self.closed = False

    def write(self, data: bytes) -> int:
        if self.broken:
            raise OSError(28, "No space left on device")
        taken = data if self.takes is None else data[: self.takes]
        self.data += taken
        return len(taken)

    def close(self) -> None:
        self.closed = True

    @property
    def ids(self) -> list[str]:
        return [json.loads(row)["auditID"] for row in self.data.splitlines()]


class Turn:
    """A loop that turns when it is told, and its clock."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.now = 100.0

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()

    def log(self, disk: Disk | None, **more: Any) -> AuditLog:
        return AuditLog(disk, lambda call: self.calls.append(call), lambda: self.now, **more)


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
            "kulvert.dev/bytes-received": "10",
            "kulvert.dev/bytes-sent": "20",
            "kulvert.dev/decision": "allow",
            "kulvert.dev/rule": "developers",
        },
    }


def test_a_stranger_has_no_name_and_a_denial_has_its_reason() -> None:
    event = read(record(identity=None, allowed=False, code=401, reason="expired", rule="", agent=""))
    assert event["user"] == {}
    assert event["annotations"]["kulvert.dev/decision"] == "forbid"
    assert event["annotations"]["kulvert.dev/reason"] == "expired"
    assert "kulvert.dev/agent" not in event["annotations"]


def test_ones_own_as_is_recorded_beside_the_user() -> None:
    event = read(record(impersonated=Impersonation("bob", ("qa",))))
    assert event["user"]["username"] == "jane"
    assert event["impersonatedUser"] == {"username": "bob", "groups": ["qa"]}


def test_exec_is_recorded_by_its_meaning() -> None:
    event = read(record(b"/api/v1/namespaces/a/pods/p/exec?command=ls&stdin=true"))
    assert (event["verb"], event["objectRef"]["subresource"]) == ("create", "exec")
    assert event["requestURI"].endswith("?command=ls&stdin=true")


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


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_every_record_is_one_line_of_json_whatever_bytes_it_holds(target: bytes, agent: bytes) -> None:
    text = line(record(b"/" + target, user_agent=agent))
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    assert json.loads(text)["auditID"] == "id-1"


def test_what_clients_may_make_long_is_cut() -> None:
    assert len(line(record(b"/" + b"x" * 100_000, user_agent=b"y" * 100_000))) < 12_000


def test_one_turn_writes_one_batch() -> None:
    disk, turn = Disk(), Turn()
    log = turn.log(disk)
    for number in range(1500):
        log.record(record(audit_id=str(number)))
    assert disk.data == b""
    assert len(turn.calls) == 1
    turn.turn()
    assert disk.ids == [str(number) for number in range(1500)]
    log.record(record(audit_id="next"))
    turn.turn()
    assert disk.ids[-1] == "next"


def test_a_sink_that_takes_little_at_a_time_tears_no_line() -> None:
    disk, turn = Disk(), Turn()
    disk.takes = 7
    log = turn.log(disk)
    log.record(record(audit_id="1"))
    log.record(record(audit_id="2"))
    turn.turn()
    assert disk.ids == ["1", "2"]


def test_a_full_disk_refuses_requests_until_it_takes_records_again_and_loses_none() -> None:
    disk, turn = Disk(), Turn()
    log = turn.log(disk)
    assert log.ready()
    disk.broken = True
    log.record(record(audit_id="1"))
    turn.turn()
    assert not log.ready()
    assert log.problem == "the audit log cannot be written: No space left on device"
    log.record(record(audit_id="2"))
    turn.turn()
    disk.broken = False
    assert not log.ready()  # it is not tried again for each request
    turn.now += 1
    assert log.ready()
    assert log.problem is None
    assert disk.ids == ["1", "2"]


def test_a_disk_that_fills_in_mid_line_goes_on_where_it_stopped() -> None:
    disk, turn = Disk(), Turn()
    log = turn.log(disk)
    log.record(record(audit_id="1"))
    disk.takes = 9
    first = disk.write

    def write(data: bytes) -> int:
        disk.broken = bool(disk.data)
        return first(data)

    disk.write = write  # type: ignore[method-assign]
    turn.turn()
    assert len(disk.data) == 9
    assert not log.ready()
    disk.write, disk.broken, disk.takes = first, False, None  # type: ignore[method-assign]
    log.flush()
    assert disk.ids == ["1"]


def test_a_pipe_that_is_full_for_a_moment_is_no_failure() -> None:
    disk, turn = Disk(), Turn()
    disk.takes = 0
    log = turn.log(disk)
    log.record(record(audit_id="1"))
    turn.turn()
    assert log.ready()
    disk.takes = None
    log.record(record(audit_id="2"))
    turn.turn()
    assert disk.ids == ["1", "2"]


def test_the_queue_is_bounded_and_counts_what_it_loses() -> None:
    disk, turn = Disk(), Turn()
    disk.takes = 0
    log = turn.log(disk, capacity=600)
    for number in range(5000):
        log.record(record(audit_id=str(number)))
        turn.turn()
    assert not log.ready()
    assert log.lost > 0
    assert len(log._queue) <= 1200
    disk.takes = None
    log.flush()
    assert log.ready()
    assert len(disk.ids) + log.lost == 5000


def test_without_refusal_a_broken_sink_lets_requests_through() -> None:
    disk, turn = Disk(), Turn()
    disk.broken = True
    log = turn.log(disk, refuse=False)
    log.record(record())
    turn.turn()
    assert log.problem is not None
    assert log.ready()


def test_no_sink_records_nothing() -> None:
    turn = Turn()
    log = turn.log(None)
    log.record(record())
    assert turn.calls == []
    assert log.ready()
    log.close()


def test_closing_writes_the_rest() -> None:
    disk = Disk()
    log = Turn().log(disk)
    log.record(record(audit_id="last"))
    log.close()
    assert disk.ids == ["last"]
    assert disk.closed


def test_a_file_is_private_appended_to_and_rotated(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(b"old\n")
    path.chmod(0o600)
    sink = FileSink(path)
    assert sink.write(b"new\n") == 4
    path.rename(tmp_path / "audit.log.1")
    sink.reopen()
    sink.write(b"rotated\n")
    sink.close()
    assert (tmp_path / "audit.log.1").read_bytes() == b"old\nnew\n"
    assert path.read_bytes() == b"rotated\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_pipe_that_does_not_block_takes_nothing_when_full() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    sink = DescriptorSink(writer)
    while sink.write(b"x" * 65536):
        pass
    assert sink.write(b"x") == 0
    os.close(reader)
    with pytest.raises(OSError, match="Broken pipe"):
        sink.write(b"x")
    os.close(writer)


@given(st.binary(min_size=16, max_size=16))
def test_audit_ids_are_uuids_and_all_different(base: bytes) -> None:
    ids = AuditIds(lambda count: base[:count])
    made = [ids() for _ in range(300)]
    assert len(set(made)) == 300
    for text in made[:3]:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.variant == uuid.RFC_4122
        assert parsed.version == 8


def test_audit_ids_go_on_past_the_end_of_their_counter() -> None:
    ids = AuditIds(lambda count: b"\xff" * count)
    assert [ids()[-12:], ids()[-12:]] == ["000000000000", "000000000001"]


def test_what_gives_a_hand_inside_a_container_is_marked_whatever_its_method() -> None:
    exec_by_get = record(info=request_info("GET", b"/api/v1/namespaces/a/pods/p/exec"))
    assert read(exec_by_get)["annotations"]["kulvert.dev/interactive"] == "true"
    assert "kulvert.dev/interactive" not in read(record())["annotations"]


def test_a_name_that_json_cannot_hold_is_escaped_and_loses_nobody_elses_record() -> None:
    disk, turn = Disk(), Turn()
    log = turn.log(disk)
    bad = Impersonation("a\ud800", ("g\udfff",), "", (("k\ud800", ("v\ud800",)),))
    for number in range(3):
        log.record(record(audit_id=str(number), rule="r\ud800" if number == 1 else "r"))
    log.record(record(audit_id="3", impersonated=bad))
    turn.turn()
    assert disk.ids == ["0", "1", "2", "3"]
    assert json.loads(disk.data.splitlines()[3])["impersonatedUser"]["username"] == "a\\ud800"
    assert log.lost == 0
    assert log.ready()


def test_a_record_that_cannot_be_written_down_leaves_its_id_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    disk, turn = Disk(), Turn()
    log = turn.log(disk)
    log.record(record(audit_id="0"))
    log.record(record(audit_id="1", user_agent=None))
    log.record(record(audit_id="2"))
    turn.turn()
    assert disk.ids == ["0", "1", "2"]
    assert log.lost == 1
    assert "cannot be written down" in caplog.text


def test_what_a_stalled_sink_did_not_take_is_offered_again_without_another_request() -> None:
    disk, turn = Disk(), Turn()
    disk.takes = 0
    waiting: list[Callable[[], None]] = []
    log = turn.log(disk, later=lambda _seconds, call: waiting.append(call))
    log.record(record(audit_id="1"))
    turn.turn()
    log.flush()
    assert len(waiting) == 1
    disk.takes = None
    waiting[0]()
    assert disk.ids == ["1"]


def test_a_reader_that_has_stalled_does_not_keep_the_end_waiting_and_what_it_left_is_counted() -> None:
    disk = Disk()
    disk.takes = 0
    log = Turn().log(disk)
    log.record(record())
    log.close(patience=0.05)
    assert disk.closed
    assert log.lost == 1


def test_the_log_goes_on_in_a_new_file_when_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = Turn().log(FileSink(path))  # type: ignore[arg-type]
    log.record(record(audit_id="1"))
    path.rename(tmp_path / "old")
    log.reopen()
    log.record(record(audit_id="2"))
    log.close()
    assert b'"id-' not in path.read_bytes()
    assert [b'"auditID":"1"' in (tmp_path / "old").read_bytes(), b'"auditID":"2"' in path.read_bytes()] == [True, True]
