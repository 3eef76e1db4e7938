"""What changes while we run: nothing that went wrong on the way makes us forget that it changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from auth.watched import Watched


class Source:
    """Counts versions; one of its three ways can be broken."""

    def __init__(self) -> None:
        self.version = 1
        self.taken: list[str] = []
        self.broken = ""
        self.watched = Watched(self.mark, self.read, self.apply, known=1)

    def fail(self, way: str) -> None:
        if self.broken == way:
            raise OSError(way)

    def mark(self) -> int:
        self.fail("mark")
        return self.version

    def read(self) -> str:
        self.fail("read")
        return f"content {self.version}"

    def apply(self, content: str) -> None:
        self.fail("apply")
        self.taken.append(content)


def test_a_change_is_taken_over_once() -> None:
    source = Source()
    assert not source.watched.poll()
    source.version = 2
    assert source.watched.poll()
    assert not source.watched.poll()
    assert source.taken == ["content 2"]


@pytest.mark.parametrize("way", ["mark", "read", "apply"])
def test_a_change_that_was_not_taken_over_comes_again(way: str) -> None:
    source = Source()
    source.version, source.broken = 2, way
    with pytest.raises(OSError, match=way):
        source.watched.poll()
    source.broken = ""
    assert source.watched.poll()
    assert source.taken == ["content 2"]


def test_a_change_while_reading_is_found_by_the_next_look() -> None:
    source = Source()
    source.version = 2
    read: Callable[[], str] = source.read

    def changing() -> str:
        content = read()
        source.version = 3
        return content

    source.watched = Watched(source.mark, changing, source.apply, known=1)
    assert source.watched.poll()
    assert source.watched.poll()
    assert source.taken == ["content 2", "content 3"]
