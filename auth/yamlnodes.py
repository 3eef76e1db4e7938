"""Strict reading of small YAML documents: each error names file, line and field; nothing is guessed or
passed over.

It walks the node tree, because there a duplicate key is still visible, `yes` is still seen to be a boolean,
and each value still knows its line. Anchors are refused: nobody needs them here, and they multiply (the
"billion laughs").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import yaml

T = TypeVar("T")

_MAX_DEPTH = 16
_STR = "tag:yaml.org,2002:str"
_BOOL = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"
_INT = "tag:yaml.org,2002:int"
_TIME = "tag:yaml.org,2002:timestamp"
_DECIMAL = re.compile(r"-?[0-9]{1,9}")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})


class YamlError(Exception):
    """The document is refused; the text names file, line, field path and what was expected."""


@dataclass(frozen=True, slots=True)
class Value:
    """One node, where it stands, and the nodes seen so far in its document."""

    node: yaml.Node
    source: str
    path: str
    seen: set[int] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        if id(self.node) in self.seen:
            raise self.error("anchors and aliases are not allowed")
        self.seen.add(id(self.node))

    def error(self, message: str) -> YamlError:
        """An error at this place."""
        mark = self.node.start_mark
        where = f"{self.source}:{mark.line + 1}" if mark else self.source
        return YamlError(f"{where}: {self.path}: {message}" if self.path else f"{where}: {message}")

    def fields(self, *, required: frozenset[str], optional: frozenset[str] = frozenset()) -> dict[str, Value]:
        """A mapping's values by name. Missing, unknown and repeated fields are errors."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error("must be a mapping")
        found: dict[str, Value] = {}
        for key, node in self.node.value:
            name = Value(key, self.source, self.path, self.seen).text()
            value = Value(node, self.source, f"{self.path}.{name}".lstrip("."), self.seen)
            if name not in required | optional:
                raise value.error(f"unknown field; known are {', '.join(sorted(required | optional))}")
            if name in found:
                raise value.error("the field is there twice")
            found[name] = value
        if missing := required - found.keys():
            raise self.error(f"lacks {', '.join(sorted(missing))}")
        return found

    def entries(self) -> dict[str, Value]:
        """A mapping whose names are the writer's own. Repeated ones are errors."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error("must be a mapping")
        names = frozenset(str(key.value) for key, _ in self.node.value)
        return self.fields(required=names)

    def items(self) -> list[Value]:
        """A list's values."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error("must be a list")
        return [
            Value(node, self.source, f"{self.path}[{number}]", self.seen) for number, node in enumerate(self.node.value)
        ]

    def texts(self, check: Callable[[Value], str] | None = None) -> tuple[str, ...]:
        """A list of distinct, non-empty strings, each passed through `check`."""
        found: dict[str, None] = {}
        for item in self.items():
            text = (check or Value.text)(item)
            if text in found:
                raise item.error(f"{text!r} is there twice")
            found[text] = None
        return tuple(found)

    def text(self) -> str:
        """A non-empty string. What YAML reads as a number, a date or a boolean must be quoted."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != _STR or not self.node.value:
            raise self.error("must be a non-empty string (quote what looks like a number or a boolean)")
        return str(self.node.value)

    def integer(self) -> int:
        """A whole number, in decimal digits."""
        value = self.node.value if isinstance(self.node, yaml.ScalarNode) and self.node.tag == _INT else ""
        if not _DECIMAL.fullmatch(value):
            raise self.error("must be a whole number")
        return int(value)

    def moment(self) -> float:
        """A time of RFC 3339 with its offset, as epoch seconds; YAML takes it for a timestamp unless it is quoted."""
        value = self.node.value if isinstance(self.node, yaml.ScalarNode) and self.node.tag in (_STR, _TIME) else ""
        try:
            if not _MOMENT.fullmatch(value):
                raise ValueError
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            raise self.error("must be a time such as 2030-01-31T00:00:00Z") from None

    @property
    def is_flag(self) -> bool:
        """Whether `flag` is what reads it."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == _BOOL

    def flag(self) -> bool:
        """true or false; not YAML 1.1's yes and no."""
        value = self.node.value if isinstance(self.node, yaml.ScalarNode) and self.node.tag == _BOOL else None
        if value not in _TRUE | _FALSE:
            raise self.error("must be true or false")
        return value in _TRUE


def read_document(text: str, source: str) -> Value:
    """The root of the single document in `text`. :raises YamlError: for bad syntax, no document, or several."""
    nodes = _composed(text, source, lambda loader: iter((yaml.compose(text, Loader=loader),)))
    if not nodes:
        raise YamlError(f"{source}:1: the file is empty")
    return Value(nodes[0], source, "")


def read_documents(text: str, source: str) -> list[Value]:
    """The roots of all documents in `text`; empty ones are passed over. :raises YamlError: for bad syntax."""
    nodes = _composed(text, source, lambda loader: yaml.compose_all(text, Loader=loader))
    return [Value(node, source, "") for node in nodes if node.tag != _NULL]


def _composed(text: str, source: str, compose: Callable[[Any], Iterator[yaml.Node | None]]) -> list[yaml.Node]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_depth(yaml.parse(text, Loader=loader), source)
        return [node for node in compose(loader) if node is not None]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlError(f"{source}:{line}: {error.problem}") from None
    except (yaml.YAMLError, RecursionError):
        raise YamlError(f"{source}:1: is not YAML") from None


def _check_depth(events: Iterable[yaml.Event], source: str) -> None:
    """libyaml composes recursively, on a stack that ends: without this, brackets enough would end the process."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise YamlError(f"{source}:{line}: nests deeper than {_MAX_DEPTH} levels")
