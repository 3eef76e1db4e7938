"""Which requests are recorded: Kubernetes' own audit Policy (`audit.k8s.io/v1`), read strictly.

It is that format and no other, so that a file written for kube-apiserver, and what checks such files, serves here too.
It knows no clusters: whoever reads the log finds the cluster in each record. The first rule that matches decides, and
where none does, nothing is recorded, as in kube-apiserver. Bodies are never looked at here, so levels that would record
them are refused with their line, rather than taken for less than they say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from auth.identity import Identity
from auth.yamlnodes import Value, YamlError, read_document
from gateway.audit.rules import FIELDS, Selector, read_selector
from tunnel.requestinfo import RequestInfo

_MAX_BYTES: Final = 1024 * 1024
_STAGES: Final = frozenset({"RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"})
_TOP: Final = frozenset({"metadata", "omitStages", "omitManagedFields"})
"""omitManagedFields speaks of bodies: it may be there, and means nothing here."""
_OPTIONAL: Final = FIELDS | {"omitStages", "omitManagedFields"}
_WITH_BODIES: Final = frozenset({"Request", "RequestResponse"})
_REMEMBERED_USERS: Final = 1024
_REMEMBERED_REQUESTS: Final = 512

Stages: TypeAlias = frozenset[str]
_Key: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """`stages` are those that it has recorded: none at level None."""

    selector: Selector
    stages: Stages


class AuditPolicy:
    """Rules, and a memory of what they say: of a user, which rules can match; of a user's request, which one does."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self._names = any(one.names for rule in rules for one in rule.selector.resources)
        self._users: dict[Identity | None, _User] = {}

    def wants(self, stage: str, identity: Identity | None, info: RequestInfo) -> bool:
        """Whether this stage of a request is recorded."""
        user = self._users.get(identity) or self._user(identity)
        key = self._key(info)
        stages = user.known.get(key)
        if stages is None:
            if len(user.known) >= _REMEMBERED_REQUESTS:
                user.known.clear()
            stages = user.known[key] = user.decide(info)
        return stage in stages

    def _user(self, identity: Identity | None) -> _User:
        if len(self._users) >= _REMEMBERED_USERS:
            self._users.clear()
        user = self._users[identity] = _User(tuple(rule for rule in self.rules if rule.selector.knows(identity)))
        return user

    def _key(self, info: RequestInfo) -> _Key:
        """All that a selector looks at. Names only where a rule has some: there are so many."""
        if not info.is_resource_request:
            return info.verb, info.path
        name = info.name if self._names else ""
        return info.verb, info.api_group, info.resource, info.subresource, info.namespace, name


@dataclass(slots=True)
class _User:
    rules: tuple[Rule, ...]
    known: dict[_Key, Stages] = field(default_factory=dict)

    def decide(self, info: RequestInfo) -> Stages:
        return next((rule.stages for rule in self.rules if rule.selector.covers(info)), frozenset())


def parse_policy(text: str, source: str = "audit policy") -> AuditPolicy:
    """Reads a policy. :raises YamlError: with file, line and field, for whatever is not exactly as documented."""
    required = frozenset({"apiVersion", "kind", "rules"})
    root = read_document(text, source).fields(required=required, optional=_TOP)
    for name, expected in (("apiVersion", "audit.k8s.io/v1"), ("kind", "Policy")):
        if root[name].text() != expected:
            raise root[name].error(f"must be {expected}")
    omitted = _omitted(root)
    rules = tuple(_rule(item, omitted) for item in root["rules"].items())
    if not rules:
        raise root["rules"].error("must not be empty: to record nothing, write one rule of level None")
    return AuditPolicy(rules)


def load_policy(path: Path) -> AuditPolicy:
    """:raises YamlError: the file cannot be read or used; the text says where and why."""
    return parse_policy(read_text(path), str(path))


def read_text(path: Path) -> str:
    """A policy file's text. :raises YamlError: it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise YamlError(f"{path}: is larger than {_MAX_BYTES} bytes")
        return data.decode()
    except OSError as error:
        raise YamlError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise YamlError(f"{path}: is not UTF-8") from None


def _rule(value: Value, omitted: Stages) -> Rule:
    fields = value.fields(required=frozenset({"level"}), optional=_OPTIONAL)
    level = fields["level"].text()
    if level in _WITH_BODIES:
        raise fields["level"].error(f"{level} would record bodies, which Kulvert never looks at: write Metadata")
    if level not in ("None", "Metadata"):
        raise fields["level"].error("must be None or Metadata")
    if "omitManagedFields" in fields:
        fields["omitManagedFields"].flag()
    stages = _STAGES - omitted - _omitted(fields)
    return Rule(read_selector(fields), stages if level == "Metadata" else frozenset())


def _omitted(fields: dict[str, Value]) -> Stages:
    return frozenset(fields["omitStages"].texts(_stage)) if "omitStages" in fields else frozenset()


def _stage(value: Value) -> str:
    stage = value.text()
    if stage not in _STAGES:
        raise value.error(f"must be one of {', '.join(sorted(_STAGES))}")
    return stage
