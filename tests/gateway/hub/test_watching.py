"""Lines of a watch, and what their events say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hub.asking import Gone, Refused
from gateway.hub.memory import Malformed
from gateway.hub.watching import Lines, event_of, version_of


@given(st.lists(st.binary(max_size=9)), st.data())
def test_lines_are_the_same_however_they_come(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"\n".join(part.replace(b"\n", b"") for part in parts)
    lines, found, rest = Lines(), [], whole
    while rest:
        length = data.draw(st.integers(1, len(rest)))
        found += lines.feed(rest[:length])
        rest = rest[length:]
    *wanted, last = whole.split(b"\n")
    assert found == [line for line in wanted if line]
    assert lines.begun == bool(last)


def test_a_line_has_a_longest_length_in_one_piece_or_many() -> None:
    assert Lines(4).feed(b"1234\n12") == [b"1234"]
    with pytest.raises(Malformed):
        Lines(4).feed(b"12345")
    lines = Lines(4)
    lines.feed(b"\n123")
    with pytest.raises(Malformed):
        lines.feed(b"45")
    lines = Lines(4)
    lines.feed(b"1\n2345")
    assert lines.feed(b"\n") == [b"2345"]


@pytest.mark.parametrize("line", [b"", b"{", b"7", b"[]", b"{}", b'{"type": 7}', b'{"type": null}', b"\xff"])
def test_what_is_no_event(line: bytes) -> None:
    with pytest.raises(Malformed):
        event_of(line)


@pytest.mark.parametrize(
    ("status", "meant", "pause"),
    [
        (b'{"code": 410}', Gone, None),
        (b'{"code": 429, "details": {"retryAfterSeconds": 7}}', Refused, 7.0),
        (b'{"code": 500, "details": {"retryAfterSeconds": -7}}', Refused, 0.0),
        (b'{"code": "410"}', Refused, 0.0),
        (b"{}", Refused, 0.0),
        (b"null", Refused, 0.0),
    ],
)
def test_an_error_is_what_its_status_says(status: bytes, meant: type[Exception], pause: float | None) -> None:
    with pytest.raises(meant) as caught:
        event_of(b'{"type": "ERROR", "object": ' + status + b"}")
    assert getattr(caught.value, "pause", None) == pause


@pytest.mark.parametrize(
    "item", [None, 7, {}, {"metadata": 7}, {"metadata": {}}, {"metadata": {"resourceVersion": ""}}]
)
def test_a_bookmark_without_a_version_is_none(item: object) -> None:
    with pytest.raises(Malformed):
        version_of(item)
