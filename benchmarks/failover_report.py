"""What `benchmarks.failover` found, as tables for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.support.load import Asking


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds without a success, the longest of all users'; requests that failed, and those tried again before."""

    direct: float
    balanced: float
    failed: int
    begun: int
    """Of those that failed: whose answer had begun."""
    retried: int
    requests: int
    why: tuple[str, ...] = ()

    @classmethod
    def of(cls, since: float, direct: Sequence[Asking], balanced: Sequence[Asking]) -> Round:
        """What these users have seen since then."""
        users = [*direct, *balanced]
        failed = [outcome for one in users for outcome in one.failed(since)]
        return cls(
            _longest(since, direct),
            _longest(since, balanced),
            len(failed),
            sum(one.begun for one in failed),
            sum(one.client.retries.all for one in users),
            sum(len(one.outcomes) for one in users),
            tuple(dict.fromkeys(one.why for one in failed))[:5],
        )

    @property
    def worst(self) -> float:
        """Of both ways."""
        return max(self.direct, self.balanced)

    @property
    def text(self) -> str:
        """In a line."""
        times = f"{self.direct:.2f} s through a replica, {self.balanced:.2f} s through the balancer"
        counts = f"{self.failed} failed ({self.begun} begun), {self.retried} retried of {self.requests}"
        return "; ".join([times, counts, *self.why])


def _longest(since: float, users: Sequence[Asking]) -> float:
    gaps = [one.gap(since) for one in users]
    return max((math.inf if gap is None else gap for gap in gaps), default=0.0)


@dataclass(slots=True)
class Series:
    """The rounds of one kind. `bar` is for the longest time, or with `failures` for requests not begun that failed."""

    name: str
    bar: float
    failures: bool
    rounds: list[Round] = field(default_factory=list)

    def add(self, one: Round) -> None:
        """Another round."""
        self.rounds.append(one)

    @property
    def value(self) -> float:
        """What has the bar."""
        if self.failures:
            return sum(one.failed - one.begun for one in self.rounds)
        return max(one.worst for one in self.rounds)

    @property
    def passed(self) -> bool:
        """Whether it is within."""
        return bool(self.rounds) and self.value <= self.bar


class Report:
    """All of one run."""

    def __init__(self) -> None:
        self._series: list[Series] = []

    def series(self, name: str, bar: float, *, failures: bool = False) -> Series:
        """A new one."""
        self._series.append(Series(name, bar, failures))
        return self._series[-1]

    @property
    def passed(self) -> bool:
        """Whether all are within their bars."""
        return all(one.passed for one in self._series)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        series = [asdict(one) | {"value": one.value, "passed": one.passed} for one in self._series]
        return {"series": series, "passed": self.passed}

    def show(self, console: Console) -> None:
        """A table."""
        table = Table(title="Unavailable time: the longest without a success, from the kill on")
        columns = ("what ends", "rounds", "p50 direct", "max", "p50 balanced", "max", "failed", "begun", "retried")
        for index, column in enumerate((*columns, "requests", "at most", "")):
            table.add_column(column, justify="right" if index else "left")
        for one in self._series:
            table.add_row(*_row(one))
        console.print(table)


def _row(series: Series) -> list[str]:
    rounds = series.rounds
    direct, balanced = [one.direct for one in rounds], [one.balanced for one in rounds]
    times = [median(direct), max(direct), median(balanced), max(balanced)]
    counts = [sum(getattr(one, name) for one in rounds) for name in ("failed", "begun", "retried", "requests")]
    bar = f"{series.bar:g} not begun" if series.failures else f"{series.bar:g} s"
    verdict = "PASS" if series.passed else "FAIL"
    return [series.name, str(len(rounds)), *(f"{one:.2f} s" for one in times), *map(str, counts), bar, verdict]
