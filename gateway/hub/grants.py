"""Grant objects of the hub (charts/crds) as a source of grants.

`spec.grantedBy` says who made one by delegation, which the hub's admission policy has checked; such a grant counts
only as far as its maker could make it here. An object that cannot be read is named, and counts as it was read last: the
first grant that matches decides as whom, so that without it the next one would, and make somebody else of the user.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from auth.grants.grant import Grant, Maker
from auth.grants.object import read_object, value_of
from auth.grants.sources import GrantSources
from auth.impersonation import HUB
from auth.yamlnodes import YamlError
from gateway.hub.watch import Object

PATH: Final = "/apis/kulvert.dev/v1alpha1/grants"
SOURCE: Final = "hub"
_ACCOUNT: Final = "system:serviceaccount:"
_log = logging.getLogger(__name__)


class HubGrants:
    """Takes what `gateway.hub.watch.HubWatch` has read to the sources of grants."""

    def __init__(self, sources: GrantSources, wall: Callable[[], float] = time.time) -> None:
        self._sources = sources
        self._wall = wall
        self._known: dict[str, Grant] = {}

    def changed(self, objects: Mapping[str, Object]) -> None:
        """All objects, by name: the order among equals of one priority."""
        read: dict[str, Grant] = {}
        bad: list[str] = []
        for name in sorted(objects):
            try:
                read[name] = grant_of(objects[name])
            except YamlError as error:
                bad.append(str(error))
                if (before := self._known.get(name)) is not None:
                    read[name] = before
        self._known = read
        problem = (
            f"not in force, or as it was before: {'; '.join(bad[:3])}{' and others' if len(bad) > 3 else ''}"
            if bad
            else None
        )
        if problem is not None:
            _log.error("grants of the hub cannot be read", extra={"problem": problem})
        ordered = sorted(read.values(), key=lambda grant: grant.priority)
        self._sources.changed(SOURCE, ordered, self._wall(), problem)


def grant_of(document: Object) -> Grant:
    """One object. :raises YamlError: it is not what the schema says."""
    spec = dict(document.get("spec") or {})
    by = spec.pop("grantedBy", None)
    name = (document.get("metadata") or {}).get("name", "")
    grant = read_object(value_of({**document, "spec": spec}, f"the hub's grant {name!r}")).grant
    return grant if by is None else replace(grant, maker=_maker(by, name))


def _maker(by: object, name: str) -> Maker:
    if isinstance(by, Mapping):
        user, groups = by.get("user"), by.get("groups", [])
        if isinstance(user, str) and user and isinstance(groups, list) and all(isinstance(g, str) for g in groups):
            return Maker(user, tuple(groups), HUB if user.startswith(_ACCOUNT) else "")
    raise YamlError(f"the hub's grant {name!r}: spec.grantedBy must be a user, and groups")
