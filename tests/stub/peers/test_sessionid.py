"""Ids of sessions that tell whose they are."""

from __future__ import annotations

import os
import string

import pytest

from stub.peers import sessionid


def test_an_id_is_found_among_those_who_may_have_made_it() -> None:
    names = [f"kulvert-{number}" for number in range(100)]
    for name in names:
        made = sessionid.make(name, os.urandom)
        assert len(made) == 32
        assert set(made) <= set(string.hexdigits.lower())
        assert sessionid.is_of(made, names) == name
        assert sessionid.is_of(made, [one for one in names if one != name]) is None
        assert sessionid.is_of(made, [name, name]) == name


def test_two_ids_of_one_replica_differ() -> None:
    assert len({sessionid.make("a", os.urandom) for _ in range(50)}) == 50


@pytest.mark.parametrize("text", ["", "a", "0" * 31, "0" * 33, "x" * 32, "é" * 32])
def test_what_is_no_id_is_nobodys(text: str) -> None:
    assert sessionid.is_of(text, ["a", "b"]) is None


def test_a_mark_that_two_share_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessionid, "_mark", lambda _identity: "0" * 8)
    assert sessionid.is_of(sessionid.make("a", os.urandom), ["a", "b"]) is None
