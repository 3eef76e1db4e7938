"""The fields of a grant as people write them, read strictly and written canonically: a typing error must not open or
close a door. The grants file, `kind: Grant` objects and the stored form share them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from auth.decision import Impersonable
from auth.grants.grant import Grant, ServiceAccount
from auth.grants.specaccess import access_fields, filled, read_access
from auth.grants.specselector import read_selector, selector_fields
from auth.grants.specwhom import read_whom, whom_fields
from auth.yamlnodes import Value
from tunnel.impersonate import built_in

REQUIRED = frozenset({"subjects"})
OPTIONAL = frozenset(
    {
        *("clusters", "clusterSelector", "access", "impersonate", "allowProtected", "allowUserImpersonation"),
        *("passThrough", "delegate", "expirationTimestamp"),
    }
)
T = TypeVar("T")
_ACCOUNT = "system:serviceaccount:"
_CLUSTER = re.compile(r"[a-z0-9*-]{1,63}")


def read_grant(name: str, fields: dict[str, Value], where: Value) -> Grant:
    """A grant of these fields (REQUIRED, OPTIONAL, and `priority` where it has one); `where` is for errors.

    :raises YamlError: with place and field, for whatever is not exactly as documented.
    """
    users, groups, accounts = _subjects(fields["subjects"])
    if "clusters" not in fields and "clusterSelector" not in fields:
        raise where.error("names no clusters: it needs clusters, clusterSelector or both")
    grant = Grant(
        name=name,
        users=users,
        groups=groups,
        clusters=_with(fields, "clusters", lambda value: filled(value).texts(_cluster), ()),
        impersonate=_with(fields, "impersonate", read_whom, None),
        allow_protected=_with(fields, "allowProtected", lambda value: frozenset(value.texts(_protected)), frozenset()),
        allow_user_impersonation=_impersonable(fields.get("allowUserImpersonation")),
        accounts=accounts,
        selector=_with(fields, "clusterSelector", read_selector, None),
        access=_with(fields, "access", read_access, None),
        pass_through=_with(fields, "passThrough", Value.flag, False),
        delegate=_with(fields, "delegate", Value.flag, False),
        expires=_with(fields, "expirationTimestamp", Value.moment, math.inf),
        priority=_with(fields, "priority", Value.integer, 0),
    )
    _check_pass_through(grant, fields, where)
    return grant


def grant_fields(grant: Grant) -> dict[str, Any]:
    """The spec of a grant, canonical: equal grants give equal specs. Without name and maker."""
    told: dict[str, Any] = {"subjects": _told_subjects(grant)}
    optional = {
        "clusters": list(grant.clusters),
        "clusterSelector": selector_fields(grant.selector) if grant.selector else None,
        "access": access_fields(grant.access) if grant.access is not None else None,
        "impersonate": whom_fields(grant.impersonate) if grant.impersonate else None,
        "allowProtected": sorted(grant.allow_protected),
        "allowUserImpersonation": _told_impersonable(grant.allow_user_impersonation),
        "passThrough": grant.pass_through,
        "delegate": grant.delegate,
        "expirationTimestamp": moment(grant.expires) if grant.expires != math.inf else None,
        "priority": grant.priority,
    }
    return told | {name: value for name, value in optional.items() if value not in (None, False, [], 0)}


def moment(at: float) -> str:
    """A time as it is written in a grant."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _with(fields: dict[str, Value], name: str, read: Callable[[Value], T], absent: T) -> T:
    return read(fields[name]) if name in fields else absent


def _subjects(value: Value) -> tuple[frozenset[str], frozenset[str], frozenset[ServiceAccount]]:
    found: dict[tuple[str, str | ServiceAccount], None] = {}
    for item in filled(value).items():
        subject = _subject(item)
        if subject in found:
            raise item.error("the subject is there twice")
        found[subject] = None
    return (
        frozenset(name for kind, name in found if kind == "User" and isinstance(name, str)),
        frozenset(name for kind, name in found if kind == "Group" and isinstance(name, str)),
        frozenset(name for _, name in found if isinstance(name, ServiceAccount)),
    )


def _subject(item: Value) -> tuple[str, str | ServiceAccount]:
    fields = item.fields(required=frozenset({"kind", "name"}), optional=frozenset({"namespace", "cluster"}))
    kind, name = fields["kind"].text(), fields["name"].text()
    if kind == "ServiceAccount":
        if "namespace" not in fields:
            raise item.error("lacks namespace")
        cluster = fields["cluster"].text() if "cluster" in fields else ""
        return kind, ServiceAccount(fields["namespace"].text(), name, cluster)
    if kind not in ("User", "Group"):
        raise fields["kind"].error("must be User, Group or ServiceAccount")
    for field in ("namespace", "cluster"):
        if field in fields:
            raise fields[field].error("unknown field; it is a ServiceAccount's")
    if kind == "User" and name.startswith(_ACCOUNT):
        raise fields["name"].error("is a service account: write kind: ServiceAccount, with namespace and name")
    return kind, name


def _told_subjects(grant: Grant) -> list[dict[str, str]]:
    accounts = [
        {"kind": "ServiceAccount", "namespace": one.namespace, "name": one.name}
        | ({"cluster": one.cluster} if one.cluster else {})
        for one in sorted(grant.accounts, key=lambda one: (one.cluster, one.namespace, one.name))
    ]
    users = [{"kind": "User", "name": name} for name in sorted(grant.users)]
    return [*users, *({"kind": "Group", "name": name} for name in sorted(grant.groups)), *accounts]


def _check_pass_through(grant: Grant, fields: dict[str, Value], where: Value) -> None:
    foreign = any(one.cluster for one in grant.accounts)
    if foreign and not grant.pass_through:
        raise where.error("a service account of a managed cluster goes there as itself: that needs passThrough: true")
    if grant.pass_through and not foreign:
        raise fields["passThrough"].error("is for subjects of kind ServiceAccount with a cluster, and there is none")


def _cluster(value: Value) -> str:
    text = value.text()
    if not _CLUSTER.fullmatch(text):
        raise value.error("must be a cluster's name (a-z, 0-9, -), in which * stands for any characters")
    return text


def _protected(value: Value) -> str:
    name = value.text()
    if not built_in(name):
        raise value.error(f"{name!r} is not protected, so there is nothing to allow")
    return name


def _impersonable(value: Value | None) -> bool | Impersonable:
    if value is None:
        return False
    if value.is_flag:
        return value.flag()
    if isinstance(value.node.value, str):
        raise value.error("must be true or false, or a mapping of users and groups")
    fields = value.fields(required=frozenset({"users"}), optional=frozenset({"groups"}))
    groups = filled(fields["groups"]).texts() if "groups" in fields else ()
    return Impersonable(filled(fields["users"]).texts(), groups)


def _told_impersonable(allowed: bool | Impersonable) -> bool | dict[str, list[str]]:
    if isinstance(allowed, bool):
        return allowed
    return {"users": list(allowed.users)} | ({"groups": list(allowed.groups)} if allowed.groups else {})
