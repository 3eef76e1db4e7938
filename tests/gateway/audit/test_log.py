"""The queue of the audit log: what happens when it cannot be written."""

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

from gateway.audit.log import AuditIds, AuditLog, AuditLogs
from gateway.audit.sinks import DescriptorSink, FileSink


def line(audit_id: str) -> bytes:
    return json.dumps({"auditID": audit_id}).encode() + b"\n"


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

    def log(self, disk: Any, **more: Any) -> AuditLog:
        return AuditLog(disk, lambda call: self.calls.append(call), lambda: self.now, **more)


def test_one_turn_writes_one_batch() -> None:
    disk, turn = Disk(), Turn()
    log = turn.log(disk)
    for number in range(1500):
        log.record(line(str(number)))
    assert disk.data == b""
    assert len(turn.calls) == 1
    turn.turn()
    assert disk.ids == [str(number) for number in range(1500)]
    log.record(line("next"))
    turn.turn()
    assert disk.ids[-1] == "next"


def test_a_sink_that_takes_little_at_a_time_tears_no_line() -> None:
    disk, turn = Disk(), Turn()
    disk.takes = 7
    log = turn.log(disk)
    log.record(line("1"))
    log.record(line("2"))
    turn.turn()
    assert disk.ids == ["1", "2"]


def test_a_full_disk_refuses_requests_until_it_takes_records_again_and_loses_none() -> None:
    disk, turn = Disk(), Turn()
    log = turn.log(disk)
    assert log.ready()
    disk.broken = True
    log.record(line("1"))
    turn.turn()
    assert not log.ready()
    assert log.problem == "the audit log cannot be written: No space left on device"
    log.record(line("2"))
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
    log.record(line("1"))
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
    log.record(line("1"))
    turn.turn()
    assert log.ready()
    disk.takes = None
    log.record(line("2"))
    turn.turn()
    assert disk.ids == ["1", "2"]


def test_the_queue_is_bounded_and_counts_what_it_loses() -> None:
    disk, turn = Disk(), Turn()
    disk.takes = 0
    log = turn.log(disk, capacity=600)
    for number in range(5000):
        log.record(line(str(number)))
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
    log.record(line("x"))
    turn.turn()
    assert log.problem is not None
    assert log.ready()


def test_no_sink_records_nothing() -> None:
    turn = Turn()
    log = turn.log(None)
    log.record(line("x"))
    assert turn.calls == []
    assert log.ready()
    log.close()


def test_closing_writes_the_rest() -> None:
    disk = Disk()
    log = Turn().log(disk)
    log.record(line("last"))
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


def test_what_a_stalled_sink_did_not_take_is_offered_again_without_another_request() -> None:
    disk, turn = Disk(), Turn()
    disk.takes = 0
    waiting: list[Callable[[], None]] = []
    log = turn.log(disk, later=lambda _seconds, call: waiting.append(call))
    log.record(line("1"))
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
    log.record(line("x"))
    log.close(patience=0.05)
    assert disk.closed
    assert log.lost == 1


def test_the_log_goes_on_in_a_new_file_when_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = Turn().log(FileSink(path))
    log.record(line("1"))
    path.rename(tmp_path / "old")
    log.reopen()
    log.record(line("2"))
    log.close()
    assert ((tmp_path / "old").read_bytes(), path.read_bytes()) == (line("1"), line("2"))


def test_where_records_may_be_lost_what_comes_to_a_full_queue_is_and_nothing_more() -> None:
    disk, turn = Disk(), Turn()
    disk.broken = True
    log = turn.log(disk, refuse=False, capacity=3)
    for number in range(5):
        log.record(line(str(number)))
    assert (log.lost, log.waiting) == (2, 3)
    disk.broken = False
    log.flush()
    assert disk.ids == ["0", "1", "2"]


def test_one_sink_that_stands_still_keeps_nothing_from_another() -> None:
    slow, quick, turn = Disk(), Disk(), Turn()
    slow.takes = 0
    logs = AuditLogs([turn.log(slow, capacity=2, refuse=False), turn.log(quick)])
    for number in range(10):
        logs.record(line(str(number)))
        turn.turn()
    assert quick.ids == [str(number) for number in range(10)]
    assert [queue.lost for queue in logs.queues] == [7, 0]  # one more is on its way
    assert logs.ready()
    assert logs.problem is None


def test_any_sink_that_must_not_lose_stands_against_new_requests() -> None:
    broken, whole, turn = Disk(), Disk(), Turn()
    broken.broken = True
    logs = AuditLogs([turn.log(whole), turn.log(broken)])
    logs.record(line("1"))
    turn.turn()
    assert not logs.ready()
    assert logs.problem == "the audit log cannot be written: No space left on device"
    assert whole.ids == ["1"]


def test_several_files_are_reopened_together(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    turn = Turn()
    logs = AuditLogs([turn.log(FileSink(path)) for path in paths])
    for path in paths:
        path.unlink()
    logs.reopen()
    logs.record(line("1"))
    turn.turn()
    assert all(b'"1"' in path.read_bytes() for path in paths)
