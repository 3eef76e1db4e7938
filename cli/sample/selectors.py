"""Label and field selectors: which objects a list or a watch is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cli.sample.document import Obj, dig
from cli.sample.resources import Resource
from cli.sample.status import bad_request
from cli.sample.store import Stored

Test = Callable[[Obj], bool]
_SET = re.compile(r"^\s*(\S+)\s+(in|notin)\s*\(([^)]*)\)\s*$")
_EQUAL = re.compile(r"^\s*([^\s=!]+)\s*(==|=|!=)\s*([^\s=!]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([A-Za-z0-9][\w./-]*)\s*$")
_COMMA_OUTSIDE_BRACKETS = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True, slots=True)
class Selection:
    namespace: str = ""
    tests: tuple[Test, ...] = ()

    @property
    def selects_all(self) -> bool:
        return not self.tests

    def matches(self, stored: Stored) -> bool:
        if self.namespace and stored.key[0] != self.namespace:
            return False
        return all(test(stored.data) for test in self.tests)


def selection(resource: Resource, namespace: str, name: str, query: Mapping[str, str]) -> Selection:
    tests = [_label(term) for term in _terms(query.get("labelSelector", ""))]
    tests += [_field(resource, term) for term in _terms(query.get("fieldSelector", ""))]
    if name:
        tests.append(_equals(("metadata", "name"), name, wanted=True))
    return Selection(namespace if resource.namespaced else "", tuple(tests))


def _terms(text: str) -> list[str]:
    return [term for term in _COMMA_OUTSIDE_BRACKETS.split(text) if term.strip()]


def _label(term: str) -> Test:
    if found := _SET.match(term):
        key, operator, values = found.groups()
        return _label_in(key, {value.strip() for value in values.split(",")}, operator == "in")
    if found := _EQUAL.match(term):
        key, operator, value = found.groups()
        return _label_in(key, {value}, operator != "!=")
    if found := _EXISTS.match(term):
        absent, key = found.groups()
        return lambda obj: (key in _labels(obj)) is not bool(absent)
    raise bad_request(f'unable to parse requirement: "{term}"')


def _label_in(key: str, values: set[str], wanted: bool) -> Test:
    """An object without the label is outside every set of values."""
    return lambda obj: (_labels(obj).get(key) in values) is wanted


def _labels(obj: Obj) -> Obj:
    return dig(obj, ("metadata", "labels")) or {}


def _field(resource: Resource, term: str) -> Test:
    found = _EQUAL.match(term)
    if found is None:
        raise bad_request(f'invalid field selector: "{term}"')
    label, operator, value = found.groups()
    if label not in resource.fields:
        raise bad_request(f"field label not supported: {label}")
    return _equals(tuple(label.split(".")), value, wanted=operator != "!=")


def _equals(path: tuple[str, ...], value: str, *, wanted: bool) -> Test:
    return lambda obj: (_text(dig(obj, path, "")) == value) is wanted


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
