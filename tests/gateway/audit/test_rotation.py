"""Rotation by size: nothing is torn, overwritten or lost, whatever clock, disk and others do."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from gateway.audit.rotation import Rotation, RotationRules
from gateway.audit.sinks import FileSink

NOON = 1_800_000_000.0
LINE = b"x" * 39 + b"\n"


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def sink(path: Path, clock: Clock, max_bytes: int = 100) -> FileSink:
    return FileSink(path, Rotation(path, RotationRules(max_bytes), clock, clock))


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def content(directory: Path) -> bytes:
    """All lines, in the order of the names: the current file's is last in time."""
    moved = [name for name in files(directory) if name != "audit.log"]
    read = [(directory / name).read_bytes() for name in moved]
    return b"".join(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data for data in read)


def test_a_file_is_moved_away_before_it_is_too_large(tmp_path: Path) -> None:
    clock = Clock()
    one = sink(tmp_path / "audit.log", clock)
    for number in range(5):
        clock.now = NOON + number
        assert one.write(LINE) == 40
    one.close()
    assert files(tmp_path) == ["audit-2027-01-15T08-00-02.000.log", "audit-2027-01-15T08-00-04.000.log", "audit.log"]
    assert content(tmp_path) + (tmp_path / "audit.log").read_bytes() == LINE * 5
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o600 for name in files(tmp_path))


def test_one_write_larger_than_the_bound_goes_into_one_file(tmp_path: Path) -> None:
    one = sink(tmp_path / "audit.log", Clock())
    one.write(LINE * 10)
    one.write(LINE)
    one.close()
    assert [len((tmp_path / name).read_bytes()) for name in files(tmp_path)] == [400, 40]


def test_what_was_there_counts_and_a_torn_line_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(LINE * 2 + b"torn by a crash")
    one = sink(path, Clock(), 200)
    one.write(LINE)
    one.write(LINE * 2)
    one.close()
    assert content(tmp_path) == LINE * 2 + b"torn by a crash\n" + LINE


def test_a_clock_that_goes_back_overwrites_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    clock = Clock()
    one = sink(tmp_path / "audit.log", clock, 40)
    for number in range(6):
        one.write(b"%039d\n" % number)
        clock.now -= 3600
    one.close()
    assert content(tmp_path) + (tmp_path / "audit.log").read_bytes() == b"".join(b"%039d\n" % n for n in range(6))


def test_the_newest_backups_are_kept(tmp_path: Path) -> None:
    clock = Clock()
    rotation = Rotation(tmp_path / "audit.log", RotationRules(100, backups=2), clock, clock)
    for hour in range(4):
        (tmp_path / f"audit-2027-01-15T0{hour}-00-00.000.log").write_bytes(b"%d" % hour)
    (tmp_path / "audit-other.log").touch()
    (tmp_path / "audit-2027-99-15T00-00-00.000.log").touch()
    rotation.tidy()
    rotation.close()
    assert content(tmp_path) == b"23"
    assert {"audit-other.log", "audit-2027-99-15T00-00-00.000.log"} <= set(files(tmp_path))


def test_backups_have_an_age_and_those_from_the_future_are_not_old(tmp_path: Path) -> None:
    clock = Clock()
    for day in ("13", "14", "31"):
        (tmp_path / f"audit-2027-01-{day}T09-00-00.000.log").touch()
    rotation = Rotation(tmp_path / "audit.log", RotationRules(100, days=1), clock, clock)
    rotation.tidy()
    rotation.close()
    assert files(tmp_path) == ["audit-2027-01-14T09-00-00.000.log", "audit-2027-01-31T09-00-00.000.log"]


def test_backups_are_compressed_and_half_a_file_is_made_anew(tmp_path: Path) -> None:
    clock = Clock()
    rotation = Rotation(tmp_path / "audit.log", RotationRules(100, compress=True), clock, clock)
    (tmp_path / "audit-2027-01-15T00-00-00.000.log").write_bytes(LINE)
    (tmp_path / "audit-2027-01-15T00-00-00.000.log.gz.part").write_bytes(b"half, from a crash" * 100)
    rotation.tidy()
    rotation.close()
    assert files(tmp_path) == ["audit-2027-01-15T00-00-00.000.log.gz"]
    assert content(tmp_path) == LINE
    assert (tmp_path / files(tmp_path)[0]).stat().st_mode & 0o077 == 0


def test_closing_ends_a_compression_and_leaves_no_half_file(tmp_path: Path) -> None:
    clock = Clock()
    rotation = Rotation(tmp_path / "audit.log", RotationRules(100, compress=True), clock, clock)
    (tmp_path / "audit-2027-01-15T00-00-00.000.log").write_bytes(LINE * 100_000)
    rotation.close()
    rotation.tidy()
    assert files(tmp_path) == ["audit-2027-01-15T00-00-00.000.log"]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls of `os` that fail, by their names: root may write everywhere."""
    failing: list[str] = []
    for name in ("rename", "open"):
        real = getattr(os, name)

        def call(*args: object, name: str = name, real: object = real, **more: object) -> object:
            if name in failing:
                raise PermissionError(13, "Permission denied")
            return real(*args, **more)  # type: ignore[operator] # it is a function

        monkeypatch.setattr(os, name, call)
    return failing


@pytest.mark.parametrize("what", ["rename", "open"])
def test_a_directory_that_cannot_be_written_lets_the_file_grow_and_is_tried_again(
    what: str, refused: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    one = sink(tmp_path / "audit.log", clock)
    refused.append(what)
    for _ in range(4):
        one.write(LINE)
    assert files(tmp_path) == ["audit.log"]
    assert (tmp_path / "audit.log").read_bytes() == LINE * 4
    assert caplog.text.count("cannot be rotated") == 1
    refused.clear()
    one.write(LINE)
    assert files(tmp_path) == ["audit.log"]
    clock.now += 60
    one.write(LINE)
    one.close()
    assert content(tmp_path) == LINE * 5


def test_a_file_that_others_moved_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    one = sink(path, Clock())
    one.write(LINE * 2)
    path.rename(tmp_path / "moved")
    one.write(LINE)
    one.close()
    assert path.read_bytes() == LINE


def test_a_line_that_was_taken_in_part_is_ended_before_the_file_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sink(tmp_path / "audit.log", Clock())
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:90]))
    assert one.write(LINE * 3) == 90
    monkeypatch.undo()
    one.write((LINE * 3)[90:])
    one.write(LINE)
    one.close()
    assert (content(tmp_path), (tmp_path / "audit.log").read_bytes()) == (LINE * 3, LINE)


def test_what_is_no_regular_file_is_never_moved_away(tmp_path: Path) -> None:
    """A pipe and a link stand for /dev/null and /dev/stdout: tests run as root, and those are everybody's."""
    pipe = tmp_path / "pipe.log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / "elsewhere").touch()
    (tmp_path / "link.log").symlink_to(tmp_path / "elsewhere")
    before = files(tmp_path)
    for path in (pipe, tmp_path / "link.log"):
        one = sink(path, Clock(), 10)
        for _ in range(5):
            one.write(LINE)
        one.close()
    os.close(reader)
    assert files(tmp_path) == before
    assert (tmp_path / "elsewhere").read_bytes() == LINE * 5
