"""What `benchmarks.scale` found: figures with their bars, as tables for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.scale_registry import Records


@dataclass(frozen=True, slots=True)
class Step:
    """The server with so many agents attached and idle. `attach` is for those that this step has added."""

    agents: int
    kb: float
    """kB of its memory for each agent, beyond what it had with one."""
    cpu: float
    """% of a core."""
    attach: float
    """Seconds."""
    attach_cpu: float
    """Milliseconds of the server's CPU for each."""
    descriptors: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and the most that it may be."""

    name: str
    value: float
    most: float
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is within."""
        return self.value <= self.most


@dataclass(slots=True)
class Report:
    """All of one run."""

    steps: list[Step] = field(default_factory=list)
    records: list[Records] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Why a part was not measured to its end."""
    retried: int = 0
    """Measurements that were begun anew, since a GET had failed: the machine was too busy to say anything."""

    def bar(self, name: str, value: float, most: float, unit: str = "") -> None:
        """Note a figure that has a bar."""
        self.bars.append(Bar(name, value, most, unit))

    @property
    def passed(self) -> bool:
        """Whether all figures are within their bars."""
        return not self.errors and all(bar.passed for bar in self.bars)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        bars = [asdict(bar) | {"passed": bar.passed} for bar in self.bars]
        return {
            "steps": [asdict(step) for step in self.steps],
            "records": [asdict(one) for one in self.records],
            "figures": self.figures,
            "bars": bars,
            "errors": self.errors,
            "retried": self.retried,
            "passed": self.passed,
        }

    def show(self, console: Console) -> None:
        """Tables."""
        for table in (self._growth(), self._records(), self._figures(), self._bars()):
            console.print(table)
        for error in self.errors:
            console.print(f"FAIL: {error}", markup=False)

    def _growth(self) -> Table:
        columns = ("agents", "kB each", "idle CPU", "attached in", "server CPU for each", "descriptors")
        table = _table("One server, with agents attached over TLS and idle", columns)
        for one in self.steps:
            table.add_row(
                str(one.agents), f"{one.kb:.1f}", f"{one.cpu:.1f} % of a core", f"{one.attach:.1f} s",
                f"{one.attach_cpu:.2f} ms", str(one.descriptors),
            )  # fmt: skip
        return table

    def _records(self) -> Table:
        table = _table("Records without agents", ("store", "records", "read in", "bytes each", "lookup", "a change"))
        for one in self.records:
            change = f"{one.change_us:.0f} µs" if one.change_us else ""
            lookup, each = f"{one.lookup_ns:.0f} ns", f"{one.bytes_each:.0f}"
            table.add_row(one.store, str(one.count), f"{one.seconds:.3f} s", each, lookup, change)
        return table

    def _figures(self) -> Table:
        table = _table("Also measured", ("what", "value"))
        for name, value in self.figures.items():
            table.add_row(name, f"{value:.4g}")
        return table

    def _bars(self) -> Table:
        table = _table("Bars", ("what", "measured", "at most", ""))
        for bar in self.bars:
            measured, most = f"{bar.value:.3g} {bar.unit}", f"{bar.most:g} {bar.unit}"
            table.add_row(bar.name, measured, most, "PASS" if bar.passed else "FAIL")
        return table


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line that fits best (least squares)."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table
