"""Names with `*` for any characters, as grants write them: matched, prepared for a request, and compared."""

from __future__ import annotations

from collections.abc import Iterable


def matches(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern with `*`. Linear, where a regular expression would backtrack."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    if not name.startswith(first) or len(name) < len(first) + len(last) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def within(inner: str, outer: str) -> bool:
    """Whether every name that `inner` matches is matched by `outer`.

    A star of `inner` is a character that no text of `outer` has, so that only a star of `outer` takes it; and that
    takes whatever stands in its place.
    """
    return matches(outer, inner)


def all_within(inner: Iterable[str], outer: Iterable[str]) -> bool:
    """Whether each of some patterns is within one of others: what only several cover together does not count."""
    outer = tuple(outer)
    return all(any(within(one, other) for other in outer) for one in inner)


def may_meet(one: str, other: str) -> bool:
    """Whether a name could match both; where that is not plain, yes."""
    if "*" not in one:
        return matches(other, one)
    if "*" not in other:
        return matches(one, other)
    begin, first = one.partition("*")[0], other.partition("*")[0]
    end, last = one.rpartition("*")[2], other.rpartition("*")[2]
    return (begin.startswith(first) or first.startswith(begin)) and (end.endswith(last) or last.endswith(end))


class Patterns:
    """Several patterns, prepared: exact names and prefixes, which nearly all are, cost one look each."""

    __slots__ = ("_exact", "_others", "_prefixes")

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = tuple(patterns)
        self._exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
        self._prefixes = tuple(p[:-1] for p in patterns if p.endswith("*") and "*" not in p[:-1])
        self._others = tuple(p for p in patterns if "*" in p[:-1])

    def match(self, name: str) -> bool:
        """Whether one of them matches."""
        if name in self._exact or name.startswith(self._prefixes):
            return True
        return bool(self._others) and any(matches(pattern, name) for pattern in self._others)
