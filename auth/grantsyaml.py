"""The grants file's format, `kulvert.dev/v1alpha1` Grants, read strictly: a typing error must not open or
close a door.
"""

from __future__ import annotations

import re

from auth.grants import Grant, Grants
from auth.impersonation import StaticIdentity
from auth.yamlnodes import Value, read_document
from tunnel.impersonate import ImpersonationRefused, built_in, headers_for

API_VERSION = "kulvert.dev/v1alpha1"
KIND = "Grants"

_PATTERN = re.compile(r"[a-z0-9*-]{1,63}")
_FIELDS = frozenset({"name", "subjects", "clusters"})
_OPTIONAL = frozenset({"impersonate", "allowProtected", "allowUserImpersonation"})


def parse_grants(text: str, source: str = "grants") -> Grants:
    """Reads a grants file. :raises YamlError: with file, line and field, for whatever is not exactly as documented."""
    root = read_document(text, source).fields(required=frozenset({"apiVersion", "kind", "grants"}))
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if root[name].text() != expected:
            raise root[name].error(f"must be {expected}")
    grants: dict[str, Grant] = {}
    for item in root["grants"].items():
        grant = _grant(item)
        if grant.name in grants:
            raise item.error(f"a grant named {grant.name!r} is there already")
        grants[grant.name] = grant
    return Grants(grants.values())


def _grant(value: Value) -> Grant:
    fields = value.fields(required=_FIELDS, optional=_OPTIONAL)
    subjects = _subjects(fields["subjects"])
    protected = fields.get("allowProtected")
    flag = fields.get("allowUserImpersonation")
    static = fields.get("impersonate")
    return Grant(
        name=fields["name"].text(),
        users=frozenset(name for kind, name in subjects if kind == "User"),
        groups=frozenset(name for kind, name in subjects if kind == "Group"),
        clusters=_filled(fields["clusters"]).texts(_pattern),
        impersonate=_static(static) if static else None,
        allow_protected=frozenset(protected.texts(_protected)) if protected else frozenset(),
        allow_user_impersonation=flag.flag() if flag else False,
    )


def _subjects(value: Value) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for item in _filled(value).items():
        fields = item.fields(required=frozenset({"kind", "name"}))
        subject = fields["kind"].text(), fields["name"].text()
        if subject[0] not in ("User", "Group"):
            raise fields["kind"].error("must be User or Group")
        if subject in found:
            raise item.error("the subject is there twice")
        found.append(subject)
    return found


def _filled(value: Value) -> Value:
    if not value.node.value:
        raise value.error("must not be empty")
    return value


def _pattern(value: Value) -> str:
    text = value.text()
    if not _PATTERN.fullmatch(text):
        raise value.error("must be a cluster's name (a-z, 0-9, -), in which * stands for any characters")
    return text


def _protected(value: Value) -> str:
    name = value.text()
    if not built_in(name):
        raise value.error(f"{name!r} is not protected, so there is nothing to allow")
    return name


def _static(value: Value) -> StaticIdentity:
    fields = value.fields(required=frozenset(), optional=frozenset({"user", "groups"}))
    if not fields:
        raise value.error("must name a user, groups or both")
    user, groups = fields.get("user"), fields.get("groups")
    return StaticIdentity(_name(user) if user else None, groups.texts(_name) if groups else None)


def _name(value: Value) -> str:
    try:
        headers_for(value.text(), (), "", ())
    except ImpersonationRefused as refused:
        raise value.error(str(refused)) from None
    return value.text()
