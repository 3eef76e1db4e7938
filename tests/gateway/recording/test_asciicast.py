"""asciicast v2: what players read."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.recording.asciicast import Asciicast


def read(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


def cast() -> Asciicast:
    return Asciicast(1_800_000_000.9, "exec prod/a/pods/p by jane", "sh -c top")


def test_the_header_has_the_size_that_the_client_tells_first() -> None:
    one = cast()
    lines = read(one.resize(0.1, 120, 40) + one.output(0.25, b"$ ") + one.resize(1.5, 100, 30))
    assert lines == [
        {
            "version": 2, "width": 120, "height": 40, "timestamp": 1_800_000_000,
            "title": "exec prod/a/pods/p by jane", "command": "sh -c top",
        },
        [0.25, "o", "$ "],
        [1.5, "r", "100x30"],
    ]  # fmt: skip


def test_without_a_size_it_has_the_usual_one() -> None:
    header, event = read(cast().output(0.5, b"x"))
    assert (header["width"], header["height"], event) == (80, 24, [0.5, "o", "x"])


def test_keys_and_notes_have_codes_of_their_own() -> None:
    one = cast()
    assert read(one.input(1, b"ls\r") + one.note(2, "the end"))[1:] == [[1, "i", "ls\r"], [2, "m", "the end"]]


def test_times_do_not_run_backwards() -> None:
    one = cast()
    assert [at for at, _, _ in read(one.output(2, b"a") + one.output(1, b"b"))[1:]] == [2, 2]


@given(st.text(min_size=1, max_size=30), st.integers(1, 5))
def test_a_character_that_is_cut_in_two_is_whole(text: str, step: int) -> None:
    one, data = cast(), text.encode()
    out = b"".join(one.output(1, data[at : at + step]) for at in range(0, len(data), step)) + one.end(2)
    assert "".join(event[2] for event in read(out)[1:]) == text


@given(st.lists(st.binary(max_size=10), max_size=10))
def test_whatever_a_terminal_shows_is_lines_of_json(pieces: list[bytes]) -> None:
    one = cast()
    out = b"".join(one.output(1, piece) for piece in pieces) + one.end(2)
    assert "".join(event[2] for event in read(out)[1:]) == b"".join(pieces).decode("utf-8", "replace")
