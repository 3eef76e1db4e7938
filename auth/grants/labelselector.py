"""Kubernetes' label selectors: which clusters one chooses, and whether it chooses none but another's.

Source: k8s.io/apimachinery `pkg/labels`; a NotIn chooses what lacks the key, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_KEY = re.compile(rf"({_DOMAIN}/)?{_NAME}")
_VALUE = re.compile(rf"({_NAME})?")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one key. `values` are for In and NotIn alone."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All of its requirements must hold."""

    requirements: tuple[Requirement, ...]

    def matches(self, labels: Labels) -> bool:
        """Whether something with these labels is chosen."""
        known = dict(labels)
        return all(_allowed((one,)).has(known.get(one.key)) for one in self.requirements)

    def within(self, outer: LabelSelector) -> bool:
        """Whether everything that this one chooses is chosen by `outer`, whatever labels there may be."""
        return all(self._of(one.key).within(_allowed((one,))) for one in outer.requirements)

    def _of(self, key: str) -> _Allowed:
        return _allowed(one for one in self.requirements if one.key == key)


@dataclass(frozen=True, slots=True)
class _Allowed:
    """What one key may be: `absent`, one of `only` (None: anything), and none of `never`."""

    absent: bool = True
    only: frozenset[str] | None = None
    never: frozenset[str] = frozenset()

    def has(self, value: str | None) -> bool:
        if value is None:
            return self.absent
        return (self.only is None or value in self.only) and value not in self.never

    def within(self, outer: _Allowed) -> bool:
        if self.absent and not outer.absent:
            return False
        if self.only is not None:
            return all(outer.has(value) for value in self.only - self.never)
        return outer.only is None and outer.never <= self.never


def _allowed(requirements: Iterable[Requirement]) -> _Allowed:
    absent, only, never = True, None, frozenset[str]()
    for one in requirements:
        if one.operator == "NotIn":
            never |= one.values
            continue
        absent = absent and one.operator == "DoesNotExist"
        if one.operator != "Exists":  # DoesNotExist has no values, so none is left
            only = one.values if only is None else only & one.values
    return _Allowed(absent, only, never)


def label_key(text: str) -> bool:
    """Whether this is a label's key: a name of at most 63 characters, with or without a domain before it."""
    return _KEY.fullmatch(text) is not None


def label_value(text: str) -> bool:
    """Whether this is a label's value; it may be empty."""
    return _VALUE.fullmatch(text) is not None
