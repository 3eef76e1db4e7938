"""Something that others may change while we run: looked at by a cheap mark, and read anew where that differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Mark = TypeVar("Mark")
Content = TypeVar("Content")


@dataclass(frozen=True, slots=True)
class Seen(Generic[Mark, Content]):
    """What `Watched.look` has found: new content, and the mark that it belongs to."""

    mark: Mark
    content: Content


class Watched(Generic[Mark, Content]):
    """`mark` tells versions apart, `read` gives what there is now, `apply` takes it over. Whatever of them raises,
    raises out of here, and the change is not forgotten: the mark counts as seen once its content has been applied.

    The mark is taken before the content is read, so a change in between is found by the next look.
    """

    def __init__(
        self, mark: Callable[[], Mark], read: Callable[[], Content], apply: Callable[[Content], None], *, known: Mark
    ) -> None:
        self._mark = mark
        self._read = read
        self._apply = apply
        self._known = known

    def look(self) -> Seen[Mark, Content] | None:
        """The content where it has changed. Touches nothing of ours, so it may run in a thread."""
        mark = self._mark()
        return None if mark == self._known else Seen(mark, self._read())

    def take(self, seen: Seen[Mark, Content] | None) -> bool:
        """Takes over what `look` has found. True where there was something."""
        if seen is None:
            return False
        self._apply(seen.content)
        self._known = seen.mark
        return True

    def poll(self) -> bool:
        """Both at once."""
        return self.take(self.look())
