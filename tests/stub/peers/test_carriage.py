"""Bytes between replicas: any cut gives the same stream, and an end that was meant is told from one that was not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stub.peers.carriage import MAX_RECORD, PREAMBLE, RecordCarriage
from tunnel.errors import ProtocolError


@given(
    st.lists(st.lists(st.binary(max_size=50), max_size=4), max_size=6),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_the_stream_is_the_same_however_it_is_cut(writes: list[list[bytes]], cuts: list[int]) -> None:
    dialled, accepted = RecordCarriage(dials=True), RecordCarriage(dials=False)
    said = dialled.begin() + b"".join(dialled.wrap(pieces) for pieces in writes) + dialled.close()
    heard, at, turn = b"", 0, 0
    while at < len(said):
        assert not accepted.ended
        size = cuts[turn % len(cuts)]
        heard += b"".join(accepted.receive(said[at : at + size]))
        at, turn = at + size, turn + 1
    assert heard == b"".join(piece for pieces in writes for piece in pieces)
    assert accepted.ended
    assert not accepted.open


def test_the_one_that_is_dialled_is_open_after_the_preamble_and_not_before() -> None:
    carriage = RecordCarriage(dials=False)
    assert carriage.begin() == b""
    carriage.receive(PREAMBLE[:-1])
    assert not carriage.open
    assert carriage.close() == b""
    carriage.receive(PREAMBLE[-1:])
    assert carriage.open


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", PREAMBLE[:-1] + b"x", b"\x00"])
def test_another_protocol_is_none_of_ours(said: bytes) -> None:
    with pytest.raises(ProtocolError, match="port for other replicas"):
        RecordCarriage(dials=False).receive(said)


def test_an_end_is_answered_once_and_what_comes_behind_it_is_dropped() -> None:
    near, far = RecordCarriage(dials=True), RecordCarriage(dials=False)
    far.receive(near.begin() + near.wrap([b"a"]))
    last = near.close()
    assert near.close() == b""
    assert not near.open
    assert near.receive(far.wrap([b"too late"])) == []
    assert far.receive(last + b"more") == []
    answer = far.pending()
    assert answer == last
    assert far.pending() == b""
    assert not near.ended
    near.receive(answer)
    assert near.ended
    assert near.pending() == b""


def test_nothing_is_no_end() -> None:
    assert RecordCarriage(dials=True).wrap([]) == b""
    assert RecordCarriage(dials=True).wrap([b""]) == b""


def test_a_record_that_is_too_long_is_refused_before_its_bytes() -> None:
    carriage = RecordCarriage(dials=True)
    with pytest.raises(ProtocolError, match="too long"):
        carriage.receive((MAX_RECORD + 1).to_bytes(4, "big"))


def test_what_is_longer_than_a_record_goes_in_several() -> None:
    carriage = RecordCarriage(dials=True)
    data = bytes(MAX_RECORD + 5)
    assert sum(map(len, carriage.receive(RecordCarriage(dials=True).wrap([data[:7], data[7:]])))) == len(data)
