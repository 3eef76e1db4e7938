"""One write a turn: when writers are flushed, and that none is forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tunnel.batch import Batch


class Loop:
    """What is to be called in the next turn."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for call in soon:
            call()


class Writer:
    def __init__(self, log: list[str], name: str, then: Callable[[], None] = lambda: None) -> None:
        self.log, self.name, self.then = log, name, then

    def flush(self) -> None:
        self.log.append(self.name)
        self.then()


def made() -> tuple[Loop, Batch, list[str]]:
    loop = Loop()
    return loop, Batch(loop.soon.append), []


def test_within_an_input_writers_are_flushed_at_its_end_in_their_order() -> None:
    loop, batch, log = made()
    with batch:
        batch.add(Writer(log, "a"))
        with batch:
            batch.add(Writer(log, "b"))
        assert log == []
    assert log == ["a", "b"]
    assert loop.soon == []


def test_outside_of_an_input_they_are_flushed_in_the_next_turn() -> None:
    loop, batch, log = made()
    batch.add(Writer(log, "a"))
    batch.add(Writer(log, "b"))
    assert len(loop.soon) == 1
    loop.turn()
    assert log == ["a", "b"]


def test_later_is_the_end_of_the_turn() -> None:
    loop, batch, log = made()
    with batch:
        batch.add_later(Writer(log, "later"))
        batch.add(Writer(log, "now"))
    assert log == ["now"]
    loop.turn()
    assert log == ["now", "later"]


def test_a_flush_may_enrol_others_and_itself_for_the_next_turn() -> None:
    loop, batch, log = made()
    again = Writer(log, "again")

    def enrol() -> None:
        batch.add(Writer(log, "second"))
        batch.add_later(again)

    first = Writer(log, "first", enrol)
    with batch:
        batch.add(first)
    assert log == ["first", "second"]
    loop.turn()
    assert log == ["first", "second", "again"]
    assert loop.soon == []


def test_after_an_input_that_raises_everything_is_flushed_all_the_same() -> None:
    _, batch, log = made()

    def fail() -> None:
        with batch:
            batch.add(Writer(log, "a"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert log == ["a"]


def test_an_input_between_add_and_its_turn_takes_it_along() -> None:
    loop, batch, log = made()
    batch.add(Writer(log, "a"))
    with batch:
        batch.add(Writer(log, "b"))
    assert log == ["a", "b"]
    loop.turn()
    assert log == ["a", "b"]
