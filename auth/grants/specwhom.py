"""The `impersonate` of a grant as people write it: whom it makes of those that it matches."""

from __future__ import annotations

from typing import Any

from auth.impersonation import EVERYBODY, AsWhom
from auth.yamlnodes import Value
from tunnel.impersonate import ImpersonationRefused, built_in, headers_for

_FIELDS = frozenset({"user", "groups", "userPrefix", "groupPrefix", "groupMap", "dropUnmapped"})
_CONTRADICTIONS = (
    ("user", "userPrefix"),
    ("groups", "groupPrefix"),
    ("groups", "groupMap"),
    ("groupPrefix", "dropUnmapped"),
)


def read_whom(value: Value) -> AsWhom:
    """:raises YamlError: as `auth.grants.spec.read_grant`."""
    fields = value.fields(required=frozenset(), optional=_FIELDS)
    if not fields:
        raise value.error("must name a user, groups or how they are mapped")
    for one, other in _CONTRADICTIONS:
        if one in fields and other in fields:
            raise fields[other].error(f"contradicts {one}: leave out one of the two")
    drop = fields["dropUnmapped"].flag() if "dropUnmapped" in fields else False
    if drop and "groupMap" not in fields:
        raise fields["dropUnmapped"].error("needs a groupMap; for no groups at all write groups: []")
    return AsWhom(
        _name(fields["user"]) if "user" in fields else None,
        fields["groups"].texts(_name) if "groups" in fields else None,
        _prefix(fields["userPrefix"]) if "userPrefix" in fields else "",
        _prefix(fields["groupPrefix"]) if "groupPrefix" in fields else "",
        _map(fields["groupMap"]) if "groupMap" in fields else (),
        drop,
    )


def whom_fields(whom: AsWhom) -> dict[str, Any]:
    """Canonical."""
    told: dict[str, Any] = {
        "user": whom.user,
        "groups": None if whom.groups is None else list(whom.groups),
        "userPrefix": whom.user_prefix or None,
        "groupPrefix": whom.group_prefix or None,
        "groupMap": dict(whom.group_map) or None,
        "dropUnmapped": whom.drop_unmapped or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _map(value: Value) -> tuple[tuple[str, str], ...]:
    found = value.entries()
    if not found:
        raise value.error("must not be empty")
    if EVERYBODY in found:
        raise found[EVERYBODY].error(f"everybody is in {EVERYBODY}: write groups in its place")
    return tuple(sorted((own, _name(new)) for own, new in found.items()))


def _name(value: Value) -> str:
    try:
        headers_for(value.text(), (), "", ())
    except ImpersonationRefused as refused:
        raise value.error(str(refused)) from None
    return value.text()


def _prefix(value: Value) -> str:
    """What it makes of a name is checked for each user; this finds what could not be meant."""
    text = _name(value)
    if built_in(text):
        raise value.error(f"{text!r} begins names that are Kubernetes' own")
    return text
