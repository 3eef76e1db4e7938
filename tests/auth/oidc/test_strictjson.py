"""Strict JSON: one meaning, or none."""

from __future__ import annotations

import pytest

from auth.oidc.strictjson import BadJson, read_object


def test_an_object_is_read() -> None:
    assert read_object('{"a": [1, {"b": "é"}], "c": null}'.encode()) == {"a": [1, {"b": "é"}], "c": None}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "twice"),
        (b'{"a": NaN}', "none in JSON"),
        (b'{"a": -Infinity}', "none in JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a":' * 100_000, "too deep|not JSON"),
        (b'{"a": 1} {"a": 2}', "not JSON"),
    ],
)
def test_what_has_no_one_meaning_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadJson, match=reason):
        read_object(data)
