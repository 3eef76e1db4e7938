"""Two joined connections: who is read when, and what an end takes along."""

from __future__ import annotations

from typing import Any, cast

import pytest

from stub.peers.pipe import HIGH, Pipe, join
from tunnel.adapter import LinkConnection


class Transport:
    """Only whether it is read."""

    def __init__(self) -> None:
        self.reading = True
        self.closing = False

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing


class Connection:
    """What a pipe asks of a `LinkConnection`; the test flushes."""

    def __init__(self) -> None:
        self.transport: Transport | None = Transport()
        self.pipe: Any = None
        self.detach: Any = None
        self.written = b""
        self.ended = ""

    def attach(self, pipe: Pipe, detach: Any, _crowded: object) -> None:
        self.pipe, self.detach = pipe, detach
        pipe.on_output = lambda: None
        pipe.on_close = pipe.on_finish = self.finish

    def flush(self) -> None:
        """A turn's end."""
        if not self.pipe.paused and not self.ended:
            self.written += b"".join(self.pipe.take())

    def finish(self, reason: str) -> None:
        if not self.ended:
            self.pipe.paused = False
            self.flush()
            self.ended = reason
            self.detach(self.pipe, reason)


class Two:
    """A pair, and what was told of the ends."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.connections = Connection(), Connection()
        self.near, self.far = (Pipe(cast(LinkConnection, one)) for one in self.connections)
        join(self.near, self.far)
        for pipe in (self.near, self.far):
            pipe.attach(self.ends.append)


def test_what_comes_in_at_one_end_goes_out_at_the_other_as_it_was() -> None:
    two = Two()
    for piece in (b"a", b"bc", b"d"):
        two.near.receive(piece)
    two.far.receive(b"back")
    for connection in two.connections:
        connection.flush()
    assert [connection.written for connection in two.connections] == [b"back", b"abcd"]


@pytest.mark.parametrize("way", [0, 1])
def test_an_end_is_read_no_more_while_the_other_takes_nothing(way: int) -> None:
    two = Two()
    source, sink = (two.near, two.far) if way == 0 else (two.far, two.near)
    reader, writer = two.connections[way], two.connections[1 - way]
    assert reader.transport is not None
    assert writer.transport is not None
    sink.paused = True
    for _ in range(HIGH // 1024):
        source.receive(bytes(1024))
    assert reader.transport.reading
    source.receive(b"x")
    source.receive(b"of the same read")
    assert not reader.transport.reading
    assert writer.transport.reading  # the other way goes on
    assert sink.held == HIGH + 17
    sink.resume()
    writer.flush()
    assert reader.transport.reading
    assert sink.held == 0
    assert len(writer.written) == HIGH + 17


@pytest.mark.parametrize("way", [0, 1])
def test_an_end_takes_the_other_along_behind_all_that_was_said(way: int) -> None:
    two = Two()
    source, sink = (two.near, two.far) if way == 0 else (two.far, two.near)
    one, other = two.connections[way], two.connections[1 - way]
    sink.paused = True
    source.receive(bytes(HIGH + 1))
    one.finish("the peer closed the link")
    assert other.ended == "the peer closed the link"
    assert len(other.written) == HIGH + 1
    assert two.ends == ["the peer closed the link"] * 2
    one.finish("again")
    other.finish("again")
    assert len(two.ends) == 2


def test_an_end_that_was_not_read_is_read_again_so_that_its_close_is_seen() -> None:
    two = Two()
    transport = two.connections[0].transport
    assert transport is not None
    two.near.stop_reading()
    two.connections[1].finish("gone")
    assert transport.reading


def test_bytes_before_there_is_another_end_are_refused() -> None:
    connection = Connection()
    pipe = Pipe(cast(LinkConnection, connection))
    pipe.attach(lambda _reason: None)
    pipe.stop_reading()
    pipe.receive(b"early")
    assert connection.ended == "bytes came before the other replica had answered"
    assert connection.transport is not None
    assert connection.transport.reading


def test_a_connection_that_is_gone_is_neither_stopped_nor_resumed() -> None:
    two = Two()
    transport = two.connections[0].transport
    assert transport is not None
    transport.closing = True
    two.near.stop_reading()
    assert transport.reading
    two.connections[0].transport = None
    two.near.stop_reading()
    two.near.read_on()


def test_who_is_refused_gets_a_last_word() -> None:
    connection = Connection()
    pipe = Pipe(cast(LinkConnection, connection))
    pipe.attach(lambda _reason: None)
    pipe.refuse(b"refused", "not reached")
    assert connection.written == b"refused"
    assert connection.ended == "not reached"
