"""The table of values of a chart's README.md, as values.yaml and values.schema.json have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.charts.cases import CHARTS

BEGIN = "<!-- values: python -m tests.charts.renew -->"
END = "<!-- end of values -->"


def renewed(chart: str) -> tuple[Path, str]:
    """The file, and what is to be in it."""
    path = CHARTS / chart / "README.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return path, f"{before}{BEGIN}\n{_table(chart)}{END}{after}"


def leaves(chart: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Each value that can be set, its default, and its schema, in the order of values.yaml."""
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    yield from _leaves("", values, schema)


def _leaves(path: str, values: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for name, value in values.items():
        known = schema["properties"][name]
        here = f"{path}.{name}".lstrip(".")
        if isinstance(value, dict) and value and "properties" in known:
            yield from _leaves(here, value, known)
        else:
            yield here, value, known


def _table(chart: str) -> str:
    lines = ["| value | default | |", "|---|---|---|"]
    for path, default, schema in leaves(chart):
        told = json.dumps(default, ensure_ascii=False).replace("|", "\\|")
        keys = f" Keys: {', '.join(f'`{key}`' for key in schema['properties'])}." if "properties" in schema else ""
        lines.append(f"| `{path}` | `{told}` | {schema['description']}{keys} |")
    return "\n".join(lines) + "\n"
