"""Which requests a rule speaks of: the selectors of Kubernetes' audit Policy, for the audit and for recordings.

Sources: k8s.io/apiserver `audit/policy` (what matches) and `apis/audit/validation` (what may be written).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import yaml

from auth.identity import Identity
from auth.yamlnodes import Value
from tunnel.requestinfo import RequestInfo

FIELDS: Final = frozenset({"users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs"})
_GROUP: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class GroupResources:
    """Resources of one API group; `*` for every group. Without resources all of the group's."""

    group: str = ""
    resources: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()

    def covers(self, info: RequestInfo) -> bool:
        """Whether a resource request is about one of these."""
        if self.group not in ("*", info.api_group):
            return False
        if not self.resources:
            return True
        return (not self.names or info.name in self.names) and any(_is(info, one) for one in self.resources)


@dataclass(frozen=True, slots=True)
class Selector:
    """What is empty selects everything. `namespaces` has "" for what is in none."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    resources: tuple[GroupResources, ...] = ()
    urls: tuple[str, ...] = ()

    def knows(self, identity: Identity | None) -> bool:
        """Whether it may speak of this user. A stranger is in no list."""
        if self.users and (identity is None or identity.user not in self.users):
            return False
        return not self.groups or (identity is not None and not self.groups.isdisjoint(identity.groups))

    def covers(self, info: RequestInfo) -> bool:
        """Whether it speaks of this request, whoever sends it."""
        if self.verbs and info.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return info.is_resource_request and self._covers_object(info)
        return not self.urls or (not info.is_resource_request and any(_below(info.path, url) for url in self.urls))

    def _covers_object(self, info: RequestInfo) -> bool:
        if self.namespaces and info.namespace not in self.namespaces:
            return False
        return not self.resources or any(one.covers(info) for one in self.resources)


def read_selector(fields: dict[str, Value]) -> Selector:
    """The selectors among a rule's fields. :raises YamlError: one of them is not as Kubernetes would have it."""
    if "nonResourceURLs" in fields and ("resources" in fields or "namespaces" in fields):
        raise fields["nonResourceURLs"].error("a rule selects resources and namespaces, or other URLs, not both")
    return Selector(
        users=_names(fields, "users"),
        groups=_names(fields, "userGroups"),
        verbs=_names(fields, "verbs"),
        namespaces=frozenset(fields["namespaces"].texts(_any_text)) if "namespaces" in fields else frozenset(),
        resources=tuple(map(_group_resources, fields["resources"].items())) if "resources" in fields else (),
        urls=fields["nonResourceURLs"].texts(_url) if "nonResourceURLs" in fields else (),
    )


def _is(info: RequestInfo, written: str) -> bool:
    resource, _, sub = written.partition("/")
    if written == "*" or written == (f"{info.resource}/{info.subresource}" if info.subresource else info.resource):
        return True
    if resource == "*":
        return bool(info.subresource) and sub == info.subresource
    return sub == "*" and resource == info.resource


def _below(path: str, url: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url[:-1]))


def _names(fields: dict[str, Value], name: str) -> frozenset[str]:
    return frozenset(fields[name].texts()) if name in fields else frozenset()


def _group_resources(value: Value) -> GroupResources:
    fields = value.fields(required=frozenset(), optional=frozenset({"group", "resources", "resourceNames"}))
    resources = fields["resources"].texts() if "resources" in fields else ()
    if "resourceNames" in fields and not resources:
        raise fields["resourceNames"].error("names need resources: which kind do they name?")
    group = _any_text(fields["group"]) if "group" in fields else ""
    if group not in ("", "*") and not _GROUP.fullmatch(group):
        raise fields["group"].error("must be an API group without a version, for example apps")
    return GroupResources(group, resources, _names(fields, "resourceNames"))


def _any_text(value: Value) -> str:
    """Like `Value.text`, but "" is a name here: the core group, or no namespace."""
    node = value.node
    return "" if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"') and not node.value else value.text()


def _url(value: Value) -> str:
    url = value.text()
    if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
        raise value.error("must begin with /, and have a * at its end only")
    return url
