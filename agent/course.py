"""Where to knock in one round of attempts: at each place in turn, and where one of them sends the agent to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from agent.address import Target

MOVES = 3
"""So often in a row an agent goes where it is sent: replicas may each take the other for the holder, for a while."""


class Course:
    """Pure. `next` until it gives None: then the round is over, and nobody took the agent."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._left = deque(targets)
        self._moves = 0
        self.failed = False
        """A place did not answer as it should: perhaps it was not the place's fault."""
        self.pending = False
        """The agent is known, and waits to be accepted."""

    @property
    def last(self) -> bool:
        """Whether there is no other place to try."""
        return not self._left

    def next(self) -> Target | None:
        """The place to try now."""
        return self._left.popleft() if self._left else None

    def sent_to(self, target: Target) -> None:
        """The place tried last knows better. Too often, and the round is over."""
        self._moves += 1
        if self._moves > MOVES:
            self.give_up()
        else:
            self._left.appendleft(target)

    def wait(self) -> None:
        """The place tried last knows the agent: it is the one to come back to."""
        self.pending = True
        self.give_up()

    def give_up(self) -> None:
        """No other place would say anything else."""
        self._left.clear()
