"""Standard output as an audit log: nobody waits for whoever reads it, and what others hold open stays as it is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gateway.audit import sinks as auditsinks
from gateway.audit.sinks import OutputSink

MUCH = b"x" * 100_000


def filled(sink: OutputSink) -> int:
    """Writes until nothing more is taken; a sink that blocked would never come back."""
    taken = 0
    while (now := sink.write(MUCH)) > 0:
        taken += now
        assert taken < 1 << 26
    return taken


@pytest.mark.parametrize("reopens", [True, False])
def test_a_stalled_pipe_takes_nothing_and_goes_on_when_it_is_read(
    reopens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    if not reopens:
        monkeypatch.setattr(auditsinks, "_own", os.dup)
    sink = OutputSink(writer)
    assert os.get_blocking(sink._descriptor) is not reopens
    taken = filled(sink)
    assert os.get_blocking(writer)  # others write to it, too
    while taken:
        taken -= len(os.read(reader, min(taken, 65_536)))
    assert sink.write(b"again") == 5
    assert os.read(reader, 10) == b"again"
    sink.close()
    os.write(writer, b"open")
    os.close(reader)
    os.close(writer)


def test_a_stalled_socket_takes_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = OutputSink(ours.fileno())
        assert filled(sink) > 0
        assert ours.getblocking()
        sink.close()
        assert ours.fileno() >= 0


def test_a_file_is_gone_on_with_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb", buffering=0) as file:
        file.write(b"before,")
        sink = OutputSink(file.fileno())
        assert sink.write(b"after") == 5
        sink.close()
    assert path.read_bytes() == b"before,after"
