"""Control messages are read strictly: nothing missing, nothing huge, nothing twice."""

from __future__ import annotations

import pytest

from tunnel.errors import ProtocolError
from tunnel.messages import encode_message, number, parse_message, text

LIMIT = 1000


def test_a_round_trip_leaves_out_what_is_none() -> None:
    payload = encode_message("health", ready=True, message=None, latencyMs=3)
    assert payload == b'{"kind": "health", "ready": true, "latencyMs": 3}'
    assert parse_message(payload, LIMIT) == {"kind": "health", "ready": True, "latencyMs": 3}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"kind"',
        b"{}",
        b'{"kind": 1}',
        b'{"kind": null}',
        b'{"kind": "a", "kind": "b"}',
        b'{"kind": "a", "x": {"y": 1, "y": 2}}',
        b'{"kind": "a"} {}',
        b"\xff",
        '{"kind": "a"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"kind": "a"}',
        b'{"kind": "a", "x": ' + b"[" * 900,
        b'{"kind": "a", "x": ' + b"9" * 960 + b"x}",
        b'{"kind": "' + b"a" * LIMIT + b'"}',
    ],
)
def test_what_is_no_message(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_message(payload, LIMIT)


def test_deep_and_long_numbers_are_no_harm() -> None:
    for payload in (b'{"kind": "a", "x": ' + b"[" * 60_000, b'{"kind": "a", "x": ' + b"9" * 60_000 + b"}"):
        with pytest.raises(ProtocolError):
            parse_message(payload, 65_536)


@pytest.mark.parametrize("value", [None, 1, True, [], {}, "a\nb", "a\0", "\ud800", "x" * 11, "\u2028"])
def test_malformed_texts(value: object) -> None:
    with pytest.raises(ProtocolError, match="hello: name"):
        text({"kind": "hello", "name": value}, "name", 10)


def test_texts() -> None:
    assert text({"kind": "k", "name": "grüße"}, "name", 10) == "grüße"
    assert text({"kind": "k"}, "name", default="") == ""
    with pytest.raises(ProtocolError):
        text({"kind": "k"}, "name")


@pytest.mark.parametrize("value", [None, "1", True, 1.0, -1, 11, [], 2**64])
def test_malformed_numbers(value: object) -> None:
    with pytest.raises(ProtocolError, match="k: n"):
        number({"kind": "k", "n": value}, "n", 0, 10)


def test_numbers() -> None:
    assert number({"kind": "k", "n": 10}, "n", 0, 10) == 10
    assert number({"kind": "k"}, "n", default=3) == 3
    with pytest.raises(ProtocolError):
        number({"kind": "k"}, "n")
