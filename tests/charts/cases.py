"""The charts, and the matrix of values that they are rendered with: a file of `cases` is a file of `golden`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CHARTS = HERE.parents[1] / "charts"
NAMES = ("kulvert", "kulvert-agent")
NAMESPACE = "kulvert"
OLD = "1.30.0"
NEW = "1.36.3"
Object = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The golden files are long, and the one in C takes a tenth of the time."""


@dataclass(frozen=True)
class Case:
    """One set of values for one chart, for a version of Kubernetes."""

    name: str
    chart: str
    kubernetes: str

    @property
    def values(self) -> Path:
        """What is given to Helm."""
        return HERE / "cases" / f"{self.name}.yaml"

    @property
    def golden(self) -> Path:
        """What Helm makes of it."""
        return HERE / "golden" / f"{self.name}.yaml"

    @property
    def objects(self) -> list[Object]:
        """All of the golden file."""
        return [one for one in yaml.load_all(self.golden.read_text(), _LOADER) if one]

    def of_kind(self, kind: str, name: str = "") -> Object:
        """The one object of a kind (and of a name)."""
        (found,) = (one for one in self.objects if one["kind"] == kind and name in ("", one["metadata"]["name"]))
        return found


CASES = (
    Case("kulvert-standby", "kulvert", NEW),
    Case("kulvert-sharded", "kulvert", NEW),
    Case("kulvert-single", "kulvert", OLD),
    Case("kulvert-everything", "kulvert", NEW),
    Case("kulvert-agent-constrained", "kulvert-agent", NEW),
    Case("kulvert-agent-joined", "kulvert-agent", NEW),
    Case("kulvert-agent-joined-old", "kulvert-agent", OLD),
    Case("kulvert-agent-everything", "kulvert-agent", OLD),
)
SERVERS = tuple(case for case in CASES if case.chart == "kulvert")
AGENTS = tuple(case for case in CASES if case.chart == "kulvert-agent")


def case(name: str) -> Case:
    """By its name."""
    (found,) = (one for one in CASES if one.name == name)
    return found
