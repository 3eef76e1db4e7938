"""Remembered header lines change nothing but the time it takes, and do not grow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.block import decode_request, encode_request
from tunnel.errors import ProtocolError
from tunnel.frames import FLAG_END, FLAG_UPGRADE
from tunnel.known import ENTRIES, LONGEST, KnownLines, LineMemory
from tunnel.ports import RequestBlock

LINES = [
    b"",
    b"impersonate-user: a\r\n",
    b"impersonate-user: b\r\nupgrade: websocket\r\n",
    b"audit-id: 2\r\n",
    b"host: a\r\n",
    b"Broken: a\r\n",
    b"a: b\r\n" * 3,
    b"authorization: Bearer a\r\n",
    b"authorization: Bearer a\r\n" * 2,
]
AUDITS = [b"", b"audit-id: 1\r\n", b"audit-id: 2\r\n", b"audit-id: \r\n", b"audit-id: a b\r\n", b"audit-id: 1\n"]
LINE = b"GET / \r\n".replace(b" \r", b"\r")
FIRST = bytes(8) + b"\0" + LINE


def outcome(flags: int, payload: bytes, memory: LineMemory | None) -> object:
    try:
        return decode_request(flags, payload, memory)
    except ProtocolError as refused:
        return str(refused)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(AUDITS),
            st.sampled_from(LINES),
            st.sampled_from([0, FLAG_END, FLAG_UPGRADE]),
            st.sampled_from([b"\0", b"\1", b"\2"]),
        )
    )
)
def test_a_memory_changes_no_answer(heads: list[tuple[bytes, bytes, int, bytes]]) -> None:
    memory = LineMemory()
    for audit, lines, flags, mode in heads:
        payload = bytes(8) + mode + LINE + audit + lines
        assert outcome(flags, payload, memory) == outcome(flags, payload, None)


def test_the_same_lines_are_known_again_behind_another_audit_id() -> None:
    memory = LineMemory()
    one, two, three = (
        decode_request(*encode_request(RequestBlock(b"GET", b"/", [(b"audit-id", audit), (b"a", value)]), 1), memory)[1]
        for audit, value in ((b"1", b"x"), (b"2", b"x"), (b"3", b"y"))
    )
    assert one.known is two.known is not None
    assert three.known is not one.known
    assert [head.headers[0][1] for head in (one, two, three)] == [b"1", b"2", b"3"]


def test_the_memory_is_bounded() -> None:
    memory = LineMemory()
    for number in range(2 * ENTRIES):
        memory.put(b"%d" % number, KnownLines([], False))
    assert sum(memory.get(b"%d" % number) is not None for number in range(2 * ENTRIES)) == ENTRIES
    memory.put(b"x" * (LONGEST + 1), KnownLines([], False))
    assert memory.get(b"x" * (LONGEST + 1)) is None


@pytest.mark.parametrize("flags", [0, FLAG_END])
def test_what_was_an_upgrade_is_none_without_its_flag(flags: int) -> None:
    memory = LineMemory()
    payload = FIRST + b"audit-id: 1\r\nupgrade: websocket\r\n"
    decode_request(FLAG_UPGRADE, payload, memory)
    with pytest.raises(ProtocolError, match="contradicts"):
        decode_request(flags, payload, memory)


def test_lines_of_a_pass_through_are_good_in_no_other_mode() -> None:
    memory = LineMemory()
    lines = b"audit-id: 1\r\nauthorization: Bearer a\r\n"
    assert decode_request(0, bytes(8) + b"\1" + LINE + lines, memory)[1].pass_through
    with pytest.raises(ProtocolError):
        decode_request(0, FIRST + lines, memory)
    decode_request(0, FIRST + b"audit-id: 1\r\nimpersonate-user: a\r\n", memory)
    with pytest.raises(ProtocolError):
        decode_request(0, bytes(8) + b"\1" + LINE + b"audit-id: 1\r\nimpersonate-user: a\r\n", memory)
