"""Who may do what, over the management API: a question that a grant's author, an owner or a user may ask.

    POST …/accessreviews    {"spec": {"cluster": "edge-7", "verb": "get", "resource": "pods/log", "namespace": "a"}}

`user` and `groups` are the caller's own, unless an administrator asks, or the cluster's owner. `resource` is
RESOURCE[.GROUP][/SUBRESOURCE]; `path` stands in its place for other URLs. With `passThrough` the user is a service
account of the cluster itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from aiohttp import web

from auth.grants.delegation import is_administrator, manages
from auth.grants.explain import Asked, Explanation, explain, imagined
from auth.grants.resources import ResourcePattern
from auth.grants.sources import GrantSources
from auth.identity import Identity
from auth.yamlnodes import Value, YamlError
from gateway import status
from gateway.failures import Refused
from gateway.granting.api import document_of, identity_of, json_answer
from gateway.granting.view import explained
from gateway.management import API_VERSION
from gateway.membership.registry import ClusterRegistry

ACCESS_REVIEWS = f"/apis/{API_VERSION}/accessreviews"
KIND = "AccessReview"
_REQUIRED = frozenset({"cluster", "verb"})
_OPTIONAL = frozenset({"user", "groups", "resource", "subresource", "namespace", "name", "path", "passThrough"})


@dataclass(frozen=True, slots=True)
class Question:
    """`user` None: the caller."""

    user: str | None
    groups: tuple[str, ...] | None
    cluster: str
    request: Asked
    pass_through: bool = False


@dataclass(frozen=True, slots=True)
class AccessApi:
    """Answers from the grants in force, by this process's own memory."""

    sources: GrantSources
    registry: ClusterRegistry
    wall: Callable[[], float]
    admin_groups: frozenset[str] = frozenset({"kulvert:admins"})

    def routes(self) -> list[web.RouteDef]:
        """For the management application."""
        return [web.post(ACCESS_REVIEWS, self._review)]

    async def _review(self, request: web.Request) -> web.Response:
        identity, value = identity_of(request), await document_of(request)
        try:
            question = read_question(value)
        except YamlError as error:
            raise Refused(status.BAD_REQUEST, str(error)) from None
        found = explained(self.answer(identity, question))
        return json_answer({"apiVersion": API_VERSION, "kind": KIND, "metadata": {}, "status": found}, 201)

    def answer(self, identity: Identity, question: Question) -> Explanation:
        """:raises Refused: it is not the caller's to ask."""
        cluster, now = self.registry.get(question.cluster), self.wall()
        labels = cluster.labels if cluster is not None else ()
        grants = self.sources.grants
        if manages(identity, question.cluster, labels, grants, self.admin_groups, now):
            who = about(identity, question)
        else:
            who = _oneself(identity, question)
        listed = self.sources.listed
        found = explain(listed, grants, who, question.cluster, now, question.request, labels)
        if is_administrator(identity, self.admin_groups) or who.user == identity.user:
            return found
        # What an owner reads of somebody else is of his own cluster alone.
        here = {grant.name for grant in grants.grants if grant.covers(question.cluster, labels)}
        return replace(found, considered=tuple(one for one in found.considered if one.rule in here), others=0)


def read_question(value: Value) -> Question:
    """:raises YamlError: the document is no AccessReview."""
    root = value.fields(required=frozenset({"spec"}), optional=frozenset({"apiVersion", "kind", "metadata", "status"}))
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if name in root and root[name].text() != expected:
            raise root[name].error(f"must be {expected}")
    fields = root["spec"].fields(required=_REQUIRED, optional=_OPTIONAL)
    if ("path" in fields) is ("resource" in fields):
        raise root["spec"].error("needs resource or path, and not both")
    text = {name: fields[name].text() for name in fields if name not in ("groups", "passThrough")}
    resource = text.get("resource", "") + (f"/{text['subresource']}" if "subresource" in text else "")
    request = asked(text["verb"], resource, text.get("namespace", ""), text.get("name", ""), text.get("path", ""))
    if request is None:
        raise fields["resource"].error("must be RESOURCE[.GROUP][/SUBRESOURCE]")
    groups = fields["groups"].texts() if "groups" in fields else None
    own = fields["passThrough"].flag() if "passThrough" in fields else False
    return Question(text.get("user"), groups, text["cluster"], request, own)


def asked(verb: str, resource: str, namespace: str, name: str, path: str = "") -> Asked | None:
    """A request as people name it; None where the resource is no RESOURCE[.GROUP][/SUBRESOURCE]."""
    if path:
        return Asked(verb.lower(), path)
    pattern = ResourcePattern.parse(resource)
    if pattern is None or "*" in resource:
        return None
    return Asked(verb.lower(), "", pattern.group, namespace, pattern.resource, pattern.subresource, name)


def about(identity: Identity, question: Question) -> Identity:
    """Whom the question is about, who may be anybody."""
    if question.user is None:
        return identity
    return imagined(question.user, question.groups or (), question.cluster if question.pass_through else "")


def _oneself(identity: Identity, question: Question) -> Identity:
    if question.user not in (None, identity.user) or not set(question.groups or ()) <= set(identity.groups):
        raise Refused(status.FORBIDDEN, "you may ask about yourself; about others, whoever owns the cluster")
    return identity if question.groups is None else replace(identity, groups=question.groups)
