"""A watch ends between two events, however they come."""

from __future__ import annotations

import pytest

from tunnel.events import Events

JSON = [(b"content-type", b"application/json")]
TABLE = [(b"content-type", b"application/json;as=Table;v=v1;g=meta.k8s.io")]
PROTOBUF = [(b"content-type", b"application/vnd.kubernetes.protobuf;stream=watch")]


@pytest.mark.parametrize("headers", [JSON, TABLE], ids=["json", "table"])
def test_a_whole_line_is_a_whole_event_at_once(headers: list[tuple[bytes, bytes]]) -> None:
    events = Events(headers)
    assert events.look()
    events.take(b'{"type":"ADDED"}\n{"type"')
    assert events.cut
    assert not events.look()
    assert not events.look(), "half an event stays half, however long it takes"
    events.take(b':"ADDED"}\n')
    assert not events.cut
    assert events.look()


@pytest.mark.parametrize("headers", [PROTOBUF, []], ids=["protobuf", "unknown"])
def test_of_what_has_no_lines_silence_tells(headers: list[tuple[bytes, bytes]]) -> None:
    events = Events(headers)
    events.take(b"\x00\x00\n")
    assert not events.look()
    events.take(b"more")
    assert not events.look()
    assert not events.cut
    assert events.look()
