"""The `access` of a grant as people write it."""

from __future__ import annotations

import re
from typing import Any

from auth.grants.access import KINDS, Access
from auth.grants.resources import ResourcePattern
from auth.yamlnodes import Value

VERBS = frozenset(
    {
        *("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy"),
        *("post", "put", "head", "options", "*"),
    }
)
_FIELDS = frozenset({"readOnly", "verbs", "resources", "namespaces", "nonResourceURLs", "interactive"})
_NAMESPACE = re.compile(r"[a-z0-9*-]{1,63}")
_URL = re.compile(r"/[!-)+-~]*\*?|\*")
_MOST = 256


def read_access(value: Value) -> Access:
    """:raises YamlError: as `auth.grants.spec.read_grant`."""
    fields = value.fields(required=frozenset(), optional=_FIELDS)
    if not fields:
        raise value.error("allows nothing in particular: leave it out to allow everything")
    read_only = fields["readOnly"].flag() if "readOnly" in fields else False
    hands = fields.get("interactive")
    access = Access(
        read_only,
        frozenset(_names(fields["verbs"], _verb)) if "verbs" in fields else None,
        tuple(map(_pattern, _names(fields["resources"], _resource))) if "resources" in fields else None,
        _names(fields["namespaces"], _namespace) if "namespaces" in fields else None,
        _names(fields["nonResourceURLs"], _url) if "nonResourceURLs" in fields else (),
        _kinds(hands) if hands else None,
    )
    if hands and access.read_only and access.interactive:
        raise hands.error("readOnly allows nothing interactive: leave out one of the two")
    return access


def access_fields(access: Access) -> dict[str, Any]:
    """Canonical."""
    told: dict[str, Any] = {"readOnly": True} if access.read_only else {}
    if access.verbs is not None:
        told["verbs"] = sorted(access.verbs)
    if access.resources is not None:
        told["resources"] = [str(pattern) for pattern in access.resources]
    if access.namespaces is not None:
        told["namespaces"] = list(access.namespaces)
    if access.urls:
        told["nonResourceURLs"] = list(access.urls)
    if access.interactive is not None:
        told["interactive"] = sorted(access.interactive) or False
    return told or {"readOnly": False}


def filled(value: Value) -> Value:
    """:raises YamlError: the list or mapping is empty."""
    if not value.node.value:
        raise value.error("must not be empty")
    return value


def _names(value: Value, check: Any) -> tuple[str, ...]:
    names = filled(value).texts(check)
    if len(names) > _MOST:
        raise value.error(f"has more than {_MOST} entries: use * or several grants")
    return names


def _kinds(value: Value) -> frozenset[str] | None:
    if value.is_flag:
        return None if value.flag() else frozenset()
    return frozenset(_names(value, _kind))


def _kind(value: Value) -> str:
    if value.text() not in KINDS:
        raise value.error(f"must be one of {', '.join(sorted(KINDS))}")
    return value.text()


def _verb(value: Value) -> str:
    if value.text() not in VERBS:
        raise value.error(f"is no verb of a request; known are {', '.join(sorted(VERBS))}")
    return value.text()


def _resource(value: Value) -> str:
    if ResourcePattern.parse(value.text()) is None:
        raise value.error("must be RESOURCE[.GROUP][/SUBRESOURCE], in which * stands for one of them as a whole")
    return value.text()


def _pattern(text: str) -> ResourcePattern:
    pattern = ResourcePattern.parse(text)
    assert pattern is not None
    return pattern


def _namespace(value: Value) -> str:
    if not _NAMESPACE.fullmatch(value.text()):
        raise value.error("must be a namespace's name (a-z, 0-9, -), in which * stands for any characters")
    return value.text()


def _url(value: Value) -> str:
    if not _URL.fullmatch(value.text()):
        raise value.error("must be a path that begins with /; a * may stand at its end")
    return value.text()
