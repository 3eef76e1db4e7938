"""Grants in YAML, `kulvert.dev/v1alpha1`: the grants file (`kind: Grants`, a list) and single objects (`kind: Grant`).
All is read strictly.
"""

from __future__ import annotations

from collections.abc import Iterable

from auth.grants.grant import Grant
from auth.grants.grants import Grants
from auth.grants.object import API_VERSION, GrantObject, read_object
from auth.grants.spec import OPTIONAL, REQUIRED, read_grant
from auth.yamlnodes import Value, read_document, read_documents

KIND = "Grants"


def parse_grants(text: str, source: str = "grants") -> Grants:
    """Reads a grants file. :raises YamlError: with file, line and field, for whatever is not exactly as documented."""
    root = read_document(text, source).fields(required=frozenset({"apiVersion", "kind", "grants"}))
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if root[name].text() != expected:
            raise root[name].error(f"must be {expected}")
    return Grants(grant for grant, _ in _distinct((_grant(item), item) for item in root["grants"].items()))


def parse_objects(text: str, source: str) -> list[GrantObject]:
    """Reads documents of single grants. :raises YamlError: as `parse_grants`; for none at all, too."""
    roots = read_documents(text, source)
    found = [read_object(root) for root in roots]
    if not found:
        raise read_document("{}", source).error("holds no grants")
    list(_distinct((one.grant, root) for one, root in zip(found, roots, strict=True)))
    return found


def _grant(value: Value) -> Grant:
    """Its place in the file is its priority, so it has no other."""
    fields = value.fields(required=REQUIRED | {"name"}, optional=OPTIONAL)
    return read_grant(fields["name"].text(), fields, value)


def _distinct(grants: Iterable[tuple[Grant, Value]]) -> list[tuple[Grant, Value]]:
    names: dict[str, tuple[Grant, Value]] = {}
    for grant, value in grants:
        if grant.name in names:
            raise value.error(f"a grant named {grant.name!r} is there already")
        names[grant.name] = grant, value
    return list(names.values())
