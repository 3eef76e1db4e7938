"""Resources as a grant names them: RESOURCE[.GROUP][/SUBRESOURCE], as in `pods`, `deployments.apps`, `pods/log`.

Without a group a name is of the core group. A `*` stands alone for all resources, groups or subresources: `*` is
everything, `*.apps` is everything of a group, both with all subresources; `pods/*` is every subresource of pods, but
not pods, `*/scale` the scale of whatever has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_FORM = re.compile(
    r"(?P<resource>\*|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)"
    r"(\.(?P<group>\*|[a-z0-9][a-z0-9.-]{0,252}))?"
    r"(/(?P<subresource>\*|[a-zA-Z0-9][a-zA-Z0-9.-]{0,62}))?"
)


@dataclass(frozen=True, slots=True)
class ResourcePattern:
    """One of them; `*` for any. `beneath`: with all subresources."""

    resource: str
    group: str = ""
    subresource: str = ""
    beneath: bool = False

    @classmethod
    def parse(cls, text: str) -> ResourcePattern | None:
        """None where the text is no such pattern."""
        match = _FORM.fullmatch(text)
        if match is None:
            return None
        resource, group, subresource = match["resource"], match["group"], match["subresource"] or ""
        everything = resource == "*"
        return cls(resource, group or ("*" if everything else ""), subresource, everything and not subresource)

    def match(self, group: str, resource: str, subresource: str) -> bool:
        """Whether a request's resource is of this pattern. The empty subresource is the resource itself."""
        return (
            self.resource in ("*", resource)
            and self.group in ("*", group)
            and (self.beneath or self.subresource == subresource or (self.subresource == "*" and bool(subresource)))
        )

    def within(self, outer: ResourcePattern) -> bool:
        """Whether all of this is of `outer`. It holds for a `*` as for a name, since no name is `*`."""
        if self.beneath and not outer.beneath:
            return False
        return outer.match(self.group, self.resource, self.subresource)

    def __str__(self) -> str:
        group = "" if self.group == ("*" if self.resource == "*" else "") else f".{self.group}"
        return self.resource + group + (f"/{self.subresource}" if self.subresource else "")


class Resources:
    """Several, prepared: those without a star cost one look in all."""

    __slots__ = ("_exact", "_others")

    def __init__(self, patterns: Iterable[ResourcePattern]) -> None:
        patterns = tuple(patterns)
        plain = [one for one in patterns if "*" not in (one.resource, one.group, one.subresource)]
        self._exact = frozenset((one.group, one.resource, one.subresource) for one in plain)
        self._others = tuple(one for one in patterns if one not in plain)

    def match(self, group: str, resource: str, subresource: str) -> bool:
        """Whether one of them does."""
        if (group, resource, subresource) in self._exact:
            return True
        return any(one.match(group, resource, subresource) for one in self._others)
