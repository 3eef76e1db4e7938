"""From files of grants to what has to be changed: a plan, which is empty of changes where there is nothing to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.failures import Failed

if TYPE_CHECKING:
    from cli.grantbook import GrantBook, Object

_SUFFIXES = (".yaml", ".yml", ".json")
_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one grant: created, configured, unchanged or deleted."""

    name: str
    outcome: str
    document: Object = field(default_factory=dict)


def label_of(text: str) -> tuple[str, str]:
    """An option's KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not key or not equals or not value:
        raise click.BadParameter(f"{text!r} is no label: write KEY=VALUE")
    return key, value


def read(paths: Sequence[Path], label: tuple[str, str] | None) -> list[Object]:
    """The grants of some files, as objects. :raises YamlError: with file and line, before anything is changed."""
    from auth.grants.spec import grant_fields
    from auth.grants.yaml import parse_objects

    found: dict[str, Object] = {}
    for path in _files(paths):
        for one in parse_objects(_text(path), str(path)):
            name = one.grant.name
            if name in found:
                raise Failed(f"{path}: a grant named {name!r} is in another of these files already")
            labels = dict(one.labels) | (dict((label,)) if label else {})
            found[name] = {
                "apiVersion": "kulvert.dev/v1alpha1",
                "kind": "Grant",
                "metadata": {"name": name} | ({"labels": labels} if labels else {}),
                "spec": grant_fields(one.grant),
            }
    return list(found.values())


def plan(wanted: Sequence[Object], present: Sequence[Object], prune: tuple[str, str] | None) -> list[Step]:
    """What to do. :raises Failed: a grant of one of these names is kept elsewhere."""
    known = {one["metadata"]["name"]: one for one in present}
    steps = [_step(one, known.get(one["metadata"]["name"])) for one in wanted]
    names = {step.name for step in steps}
    gone = [one for name, one in known.items() if prune and name not in names and _carries(one, prune)]
    return [*steps, *(Step(one["metadata"]["name"], "deleted", one) for one in gone)]


def take(step: Step, book: GrantBook) -> None:
    """Does it."""
    if step.outcome == "created":
        book.create(step.document)
    elif step.outcome == "configured":
        book.replace(step.document)
    elif step.outcome == "deleted":
        book.delete(step.name, step.document["metadata"]["resourceVersion"])


def _step(wanted: Object, present: Object | None) -> Step:
    name = wanted["metadata"]["name"]
    if present is None:
        return Step(name, "created", wanted)
    version = present["metadata"].get("resourceVersion")
    if version is None:
        raise Failed(f"grant {name!r} is kept in the {present['status']['source']}: change it there, or rename yours")
    same_labels = present["metadata"].get("labels", {}) == wanted["metadata"].get("labels", {})
    if same_labels and present["spec"] == wanted["spec"]:
        return Step(name, "unchanged")
    return Step(name, "configured", wanted | {"metadata": wanted["metadata"] | {"resourceVersion": version}})


def _carries(one: Object, label: tuple[str, str]) -> bool:
    labels = one["metadata"].get("labels", {})
    return "resourceVersion" in one["metadata"] and labels.get(label[0]) == label[1]


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        found += sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise Failed(f"{path} is larger than {_MAX_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Failed(f"{path} is not UTF-8") from None
