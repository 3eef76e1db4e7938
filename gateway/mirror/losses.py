"""Which of our changes were overruled: for whoever made them, and for nobody else."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

MOST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Since:
    """A moment: the `number` of the file's latest change (0: nobody knows), and how often one was overruled before."""

    number: int
    losses: int


class Losses:
    """The latest `most` of them: who asks for earlier ones is told that his was among them."""

    def __init__(self, most: int = MOST) -> None:
        self._latest: deque[tuple[str, int]] = deque(maxlen=most)
        self.count = 0

    def add(self, lost: Mapping[str, int]) -> None:
        """Names of documents, with the number of our latest change in each."""
        self._latest.extend(lost.items())
        self.count += len(lost)

    def among(self, since: Since, names: Collection[str] | None) -> bool:
        """Whether a change that was made after `since` was overruled in one of these documents, or (None) in any."""
        new = self.count - since.losses
        if new > len(self._latest):
            return True
        latest = islice(reversed(self._latest), new)
        return any(last > since.number and (names is None or name in names) for name, last in latest)
