"""Who may do what: a fixed table instead of RBAC objects, which a sample has no business keeping.

The agent's own identity can do less than on a real cluster (no discovery), on purpose: a request that lost
its impersonation on the way is refused here, and a test sees it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cli.sample.attributes import Attributes
from cli.sample.callers import AGENT, AUTHENTICATION, Caller
from cli.sample.resources import RESOURCES
from cli.sample.status import forbidden

ADMINS = "kulvert:admins"
VIEWERS = "kulvert:viewers"
_AUTHORIZATION = "authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Rule:
    """Subjects are users and groups alike; every field is a list of shell patterns, empty meaning none."""

    subjects: tuple[str, ...]
    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ("*",)
    paths: tuple[str, ...] = ()
    but_not: tuple[str, ...] = ()

    def allows(self, caller: Caller, asked: Attributes) -> bool:
        if caller.name in self.but_not or not {caller.name, *caller.groups} & set(self.subjects):
            return False
        if not _matches(self.verbs, asked.verb):
            return False
        if not asked.resource:
            return _matches(self.paths, asked.path)
        return (
            _matches(self.groups, asked.group)
            and _matches(self.resources, asked.full_resource)
            and _matches(self.names, asked.name)
        )


_VIEWABLE = tuple(r.plural for r in RESOURCES if r.stored and r.plural != "secrets")
_PUBLIC = ("/healthz", "/livez", "/readyz", "/version", "/api", "/api/*", "/apis", "/apis/*", "/openapi/*")

RULES = (
    Rule((ADMINS, "system:masters"), ("*",), ("*",), ("*",), paths=("*",)),
    Rule((VIEWERS,), ("get", "list", "watch"), ("*",), (*_VIEWABLE, "pods/log", "*/status")),
    Rule(("system:authenticated",), ("get",), paths=_PUBLIC, but_not=(AGENT.name,)),
    Rule(
        ("system:authenticated",),
        ("create",),
        (AUTHENTICATION, _AUTHORIZATION),
        ("selfsubjectreviews", "selfsubjectaccessreviews"),
    ),
    Rule((AGENT.name,), ("get",), paths=("/readyz", "/version")),
    Rule((AGENT.name,), ("get",), ("",), ("namespaces",), names=("kube-system",)),
    Rule((AGENT.name,), ("impersonate",), ("",), ("users", "groups", "serviceaccounts")),
    Rule((AGENT.name,), ("impersonate",), (AUTHENTICATION,), ("uids", "userextras/*")),
)


def allowed(caller: Caller, asked: Attributes, rules: Iterable[Rule] = RULES) -> bool:
    return any(rule.allows(caller, asked) for rule in rules)


def require(caller: Caller, asked: Attributes) -> None:
    if not allowed(caller, asked):
        raise forbidden(asked.qualified, asked.name, _why(caller, asked))


def _why(caller: Caller, asked: Attributes) -> str:
    """The sentence of kube-apiserver, word for word: people search for it."""
    who = f'User "{caller.name}" cannot {asked.verb}'
    if not asked.resource:
        return f'{who} path "{asked.path}"'
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    return f'{who} resource "{asked.full_resource}" in API group "{asked.group}" {where}'


def _matches(patterns: tuple[str, ...], value: str) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
