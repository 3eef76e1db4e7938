"""Who hears of changes. One that fails is logged, and stops nobody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from gateway.hub.memory import Delta

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Subscribers(Generic[T]):
    """All are told of the same changes in the same order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._all: dict[object, Callable[[Sequence[Delta[T]]], None]] = {}

    def add(self, hear: Callable[[Sequence[Delta[T]]], None]) -> Callable[[], None]:
        """Returns what ends it, at once."""
        token = object()
        self._all[token] = hear

        def end() -> None:
            self._all.pop(token, None)

        return end

    def tell(self, deltas: Sequence[Delta[T]]) -> None:
        """To all who are there before it begins."""
        for token, hear in list(self._all.items()):
            if token in self._all:
                self.tell_one(hear, deltas)

    def tell_one(self, hear: Callable[[Sequence[Delta[T]]], None], deltas: Sequence[Delta[T]]) -> None:
        """It is a bug if somebody cannot hear; the others' news must not end with it."""
        try:
            hear(deltas)
        except Exception:
            _log.exception("a change of the hub's objects was not taken", extra={"informer": self._name})
