"""What a cluster's owner forbids, whatever a gateway says: by path, verb, namespace and identity, and by meaning.

A deny list beats an allow list; an empty allow list allows everything. What the rules cannot judge (a path with two
meanings, a list over all namespaces where some are forbidden) they refuse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate
from re import Pattern, compile
from typing import Final

from agent.policypath import ambiguous
from tunnel.requestinfo import RequestInfo, request_info

_READS: Final = frozenset({"get", "list", "watch"})
_READS_ELSEWHERE: Final = frozenset({"get", "head"})
_ASKING: Final = frozenset({
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
})  # fmt: skip
"""Creating one of these asks about oneself, and changes nothing: `kubectl auth whoami` and `can-i`."""
_OVER_ALL: Final = frozenset({"list", "watch", "deletecollection"})
_CLUSTER_SCOPED: Final = frozenset({
    ("", "componentstatuses"), ("", "namespaces"), ("", "nodes"), ("", "persistentvolumes"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"), ("apiregistration.k8s.io", "apiservices"),
    ("certificates.k8s.io", "certificatesigningrequests"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"), ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("metrics.k8s.io", "nodes"), ("networking.k8s.io", "ingressclasses"), ("node.k8s.io", "runtimeclasses"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"), ("rbac.authorization.k8s.io", "clusterroles"),
    ("scheduling.k8s.io", "priorityclasses"), ("storage.k8s.io", "csidrivers"), ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"), ("storage.k8s.io", "volumeattachments"),
})  # fmt: skip
"""Lists of these are never lists over all namespaces. Of others nobody here knows that: the path does not say."""
_REMEMBERED: Final = 1024
_LONGEST: Final = 512


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rule forbids it: the rule is a setting's key, in the agent's file."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.text} ({self.rule})"


@dataclass(frozen=True, slots=True)
class Lists:
    """An allow list and a deny list of patterns, in which `*` stands for any characters."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def compiled(self) -> tuple[Pattern[str] | None, Pattern[str] | None]:
        """(allow, deny) as one expression each; None for an empty list."""
        return _any_of(self.allow), _any_of(self.deny)


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """The rules as they are written. Without any, `made` is None, and requests are not looked at."""

    read_only: bool = False
    interactive: bool = True
    paths: Lists = field(default_factory=Lists)
    verbs: Lists = field(default_factory=Lists)
    namespaces: Lists = field(default_factory=Lists)
    deny_users: tuple[str, ...] = ()
    deny_groups: tuple[str, ...] = ()

    def made(self) -> PolicyRules | None:
        """The rules, ready to judge."""
        return PolicyRules(self) if self != RuleSettings() else None


class PolicyRules:
    """Judges requests, and remembers the verdict on the last ones. One for an agent's whole life."""

    def __init__(self, settings: RuleSettings) -> None:
        self._settings = settings
        self._paths = settings.paths.compiled()
        self._verbs = settings.verbs.compiled()
        self._namespaces = settings.namespaces.compiled()
        self._users, self._groups = _any_of(settings.deny_users), _any_of(settings.deny_groups)
        self.names_identities = self._users is not None or self._groups is not None
        self._verdicts: dict[tuple[bytes, bytes, bool], Refusal | None] = {}

    def of_request(self, method: bytes, target: bytes, upgrade: bool) -> Refusal | None:
        """Why this request is forbidden, or None. The target is a checked one: visible ASCII."""
        if len(target) > _LONGEST:
            return self._judge(method, target, upgrade)
        key = (method, target, upgrade)
        try:
            return self._verdicts[key]
        except KeyError:
            verdict = self._judge(method, target, upgrade)
        if len(self._verdicts) >= _REMEMBERED:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[key] = verdict
        return verdict

    def of_identity(self, user: str, groups: Iterable[str]) -> Refusal | None:
        """Why nobody may be impersonated so, or None. The text does not repeat the name."""
        if self._users is not None and self._users.fullmatch(user):
            return Refusal("denyUsers", "this user may not come in here")
        if self._groups is not None and any(self._groups.fullmatch(group) for group in groups):
            return Refusal("denyGroups", "a group of this user may not come in here")
        return None

    def _judge(self, method: bytes, target: bytes, upgrade: bool) -> Refusal | None:
        path, _, query = target.partition(b"?")
        if ambiguous(path):
            return Refusal("rules", "the path can be read in two ways, and this agent has rules about paths")
        info = request_info(method.decode("ascii"), path, query)
        return (
            self._path(info) or self._verb(info) or self._namespace(info)
            or self._reading(info, upgrade) or self._hands(info, upgrade)
        )  # fmt: skip

    def _path(self, info: RequestInfo) -> Refusal | None:
        """The API server takes a path with a slash at its end for the same one without."""
        bare = info.path.rstrip("/") or "/"
        rules = {_against(self._paths, path, "Paths") for path in (info.path, bare)}
        rule = "denyPaths" if "denyPaths" in rules else min(rules)
        return Refusal(rule, "this path is not open here") if rule else None

    def _verb(self, info: RequestInfo) -> Refusal | None:
        rule = _against(self._verbs, info.verb, "Verbs")
        return Refusal(rule, f"the verb {info.verb!r} is not open here") if rule else None

    def _namespace(self, info: RequestInfo) -> Refusal | None:
        if self._namespaces == (None, None) or not info.is_resource_request:
            return None
        if info.namespace:
            return self._in_namespace(info.namespace)
        kind = info.api_group, info.resource
        if kind in _ASKING:
            return None
        if self._namespaces[0] is not None:
            return Refusal("allowNamespaces", "only some namespaces are open here: name one")
        if info.interactive or (info.verb in _OVER_ALL and kind not in _CLUSTER_SCOPED):
            return Refusal("denyNamespaces", "some namespaces are closed here: name one, instead of all")
        return None

    def _in_namespace(self, namespace: str) -> Refusal | None:
        rule = _against(self._namespaces, namespace, "Namespaces")
        return Refusal(rule, f"the namespace {namespace[:63]!a} is not open here") if rule else None

    def _reading(self, info: RequestInfo, upgrade: bool) -> Refusal | None:
        """A GET by an upgrade, to a proxied application, or into a container is no read: who knows what it does."""
        if not self._settings.read_only:
            return None
        if info.is_resource_request:
            asking = info.verb == "create" and (info.api_group, info.resource) in _ASKING and not info.subresource
            reads = asking or (info.verb in _READS and info.subresource != "proxy" and not info.interactive)
        else:
            reads = info.verb in _READS_ELSEWHERE
        if reads and (not upgrade or info.verb in ("list", "watch") or info.subresource == "log"):
            return None
        return Refusal("readOnly", "only reading is open here")

    def _hands(self, info: RequestInfo, upgrade: bool) -> Refusal | None:
        """An upgrade that nobody here knows may be a shell of tomorrow."""
        if self._settings.interactive:
            return None
        known = info.verb in ("list", "watch") or info.subresource in ("log", "proxy")
        if info.interactive or (upgrade and not known):
            return Refusal("interactive", "exec, attach, port-forward and their like are not open here")
        return None


def _any_of(patterns: tuple[str, ...]) -> Pattern[str] | None:
    """Globs with `*` alone: `?` and `[` are themselves, since names in Kubernetes have no such classes."""
    if not patterns:
        return None
    quoted = (one.replace("[", "[[]").replace("?", "[?]") for one in patterns)
    return compile("|".join(translate(one) for one in quoted))


def _against(lists: tuple[Pattern[str] | None, Pattern[str] | None], text: str, what: str) -> str:
    """The setting that forbids a text, or ""."""
    allow, deny = lists
    if deny is not None and deny.fullmatch(text):
        return f"deny{what}"
    if allow is not None and not allow.fullmatch(text):
        return f"allow{what}"
    return ""
