"""Clusters over the management API: who asks to be one, what is so of one, and its removal.

    GET    …/clusters/NAME                        conditions, gates, finalizers, and how far a removal has come
    DELETE …/clusters/NAME[?force=true]           the wish to remove it; the server does it step by step
    POST   …/clusters/NAME/accept|deny|switch     {"clusterId": "…"}; accept: "key", too
    PUT    …/clusters/NAME/conditions/TYPE        {"status": "True", "reason": "…", "message": "…"}
    PUT, DELETE …/clusters/NAME/gates/TYPE, …/clusters/NAME/finalizers/FINALIZER
    GET    …/clusters/NAME/certificates           DELETE …/clusters/NAME/certificates/SERIAL revokes
                                                  (and the cluster's join tokens, but for ?keepTokens=true)
    GET    …/enrolments                           requests that wait

Whoever may reach a cluster may read it; all else is for whoever manages it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from auth.identity import Identity
from gateway import status
from gateway.bounded import read_whole
from gateway.database import RegistryError
from gateway.failures import Refused
from gateway.handover import caller_of
from gateway.management import CLUSTERS, Attached, nothing_to_ask
from gateway.membership import changes as membership
from gateway.membership.cluster import Cluster, Mark
from gateway.membership.conditions import BUILT_IN, Condition, ConditionError
from gateway.membership.stores import Stores
from gateway.membership.view import API_VERSION, Object, certificate_object, cluster_object, enrolment_object

ENROLMENTS: Final = f"/apis/{API_VERSION}/enrolments"
MAX_BODY: Final = 16 * 1024
_FIELDS: Final = {"clusterId", "key", "status", "reason", "message"}
_MARKS: Final = {"gates": Mark.GATE, "finalizers": Mark.FINALIZER}


@dataclass(frozen=True, slots=True)
class ClusterApi:
    """`reaches` says whether a caller may reach a cluster at all, `manages` whether he manages the one of this name
    (which may not exist yet), or, with an empty name, all of them.
    """

    stores: Stores
    attached: Callable[[str], Attached]
    reaches: Callable[[Identity, Cluster], Awaitable[bool]]
    manages: Callable[[Identity, str], Awaitable[bool]]
    wall: Callable[[], float]
    reports: Callable[[str], list[Object]] = lambda _cluster: []
    """What each attached agent of a cluster says of itself and its API server."""
    refresh: Callable[[Collection[str]], Awaitable[None]] = nothing_to_ask
    """Before `attached` and `reports` are asked of clusters whose agents may be elsewhere."""

    def routes(self) -> list[web.RouteDef]:
        """For the management application."""
        one = f"{CLUSTERS}/{{name}}"
        return [
            web.get(ENROLMENTS, self._enrolments),
            web.get(one, self._get),
            web.delete(one, self._remove),
            web.post(f"{one}/accept", self._accept),
            web.post(f"{one}/deny", self._deny),
            web.post(f"{one}/switch", self._switch),
            web.get(f"{one}/certificates", self._certificates),
            web.delete(f"{one}/certificates/{{serial}}", self._revoke),
            web.put(f"{one}/conditions/{{value:.+}}", self._set_condition),
            web.put(f"{one}/{{kind:gates|finalizers}}/{{value:.+}}", self._mark),
            web.delete(f"{one}/{{kind:gates|finalizers}}/{{value:.+}}", self._unmark),
        ]

    # --- reading

    async def _get(self, request: web.Request) -> web.Response:
        identity, name = _identity(request), request.match_info["name"]
        cluster = self.stores.registry.get(name)
        reached = cluster is not None and await self.reaches(identity, cluster)
        if not reached and not await self.manages(identity, name):
            raise Refused(status.FORBIDDEN, f"no grant lets you see cluster {name!r}")
        if cluster is None:
            raise Refused(status.CLUSTER_NOT_FOUND, name)
        await self.refresh([name])
        return _json(self.shown(cluster))

    def shown(self, cluster: Cluster) -> Object:
        """A cluster as the API shows it."""
        made = cluster_object(cluster, self.stores.removals.get(cluster.name))
        attached = self.attached(cluster.name)
        agents = {"ready": attached.ready > 0, "agents": attached.agents, "readyAgents": attached.ready}
        made["status"] |= agents | {"message": attached.message, "agentReports": self.reports(cluster.name)}
        return made

    async def _enrolments(self, request: web.Request) -> web.Response:
        identity = _identity(request)
        found = [one for one in self.stores.enrolments.list() if await self.manages(identity, one.cluster)]
        return _json(_list("EnrolmentList", [enrolment_object(one) for one in found]))

    async def _certificates(self, request: web.Request) -> web.Response:
        name = await self._managed(request)
        return _json(_list("AgentCertificateList", [certificate_object(c) for c in self.stores.certificates.of(name)]))

    # --- changing

    async def _accept(self, request: web.Request) -> web.Response:
        name, body = await self._managed(request), await _body(request)
        key = _text(body, "key") or ""
        with _refusing():
            cluster, _ = membership.accept(self.stores, name, _text(body, "clusterId"), self.wall(), key)
        return _json(self.shown(cluster))

    async def _deny(self, request: web.Request) -> web.Response:
        name, body = await self._managed(request), await _body(request)
        with _refusing():
            count = membership.deny(self.stores, name, _text(body, "clusterId"))
        return _json({"apiVersion": API_VERSION, "kind": "Denied", "count": count})

    async def _switch(self, request: web.Request) -> web.Response:
        name, body = await self._managed(request), await _body(request)
        with _refusing():
            cluster = membership.switch(self.stores, name, _text(body, "clusterId") or "", self.wall())
        return _json(self.shown(cluster))

    async def _remove(self, request: web.Request) -> web.Response:
        name, by = await self._managed(request), _identity(request).user
        with _refusing():
            membership.remove(self.stores, name, by, request.query.get("force") == "true", self.wall())
        return _json(self.shown(self._known(name)), 202)

    async def _revoke(self, request: web.Request) -> web.Response:
        name = await self._managed(request)
        with _refusing():
            revoked = membership.revoke(self.stores, name, request.match_info["serial"], self.wall())
            if request.query.get("keepTokens") != "true":  # by which its holder would be back at once
                self.stores.tokens.remove_of(name)
        return _json(certificate_object(revoked))

    async def _set_condition(self, request: web.Request) -> web.Response:
        name, body, kind = await self._managed(request), await _body(request), request.match_info["value"]
        if kind in BUILT_IN:
            raise Refused(status.FORBIDDEN, f"{kind} is what Kulvert finds out by itself")
        before = {one.type: one for one in self._known(name).conditions}
        with _refusing():
            parts = (_text(body, "status") or "", _text(body, "reason") or "Set", _text(body, "message") or "")
            made = Condition(kind, *parts).after(before.get(kind), self.wall())
            return _json(self.shown(self.stores.registry.set_condition(name, made)))

    async def _mark(self, request: web.Request) -> web.Response:
        name = await self._managed(request)
        with _refusing():
            kind, value = _MARKS[request.match_info["kind"]], request.match_info["value"]
            return _json(self.shown(self.stores.registry.mark(name, kind, value)))

    async def _unmark(self, request: web.Request) -> web.Response:
        name = await self._managed(request)
        with _refusing():
            self.stores.registry.unmark(name, _MARKS[request.match_info["kind"]], request.match_info["value"])
        return _json(self.shown(self._known(name)))

    async def _managed(self, request: web.Request) -> str:
        name = request.match_info["name"]
        if not await self.manages(_identity(request), name):
            raise Refused(status.FORBIDDEN, f"you do not manage cluster {name!r}")
        await self.refresh([name])
        return name

    def _known(self, name: str) -> Cluster:
        cluster = self.stores.registry.get(name)
        if cluster is None:
            raise Refused(status.CLUSTER_NOT_FOUND, name)
        return cluster


def _identity(request: web.Request) -> Identity:
    identity = caller_of(request).identity
    if identity is None:
        raise Refused(status.UNAUTHENTICATED, "this path is not public")
    return identity


async def _body(request: web.Request) -> Object:
    """A JSON object of a few known fields; none at all is an empty one.

    A page of somebody else's cannot make a browser send this type, with its user's certificate, unasked.
    """
    if request.content_type != "application/json":
        raise Refused(status.BAD_REQUEST, "send Content-Type: application/json")
    if (raw := await read_whole(request.content, MAX_BODY)) is None:
        raise Refused(status.TOO_LARGE, f"more than {MAX_BODY} bytes")
    try:
        body: Any = orjson.loads(raw) if raw.strip() else {}
    except orjson.JSONDecodeError:
        raise Refused(status.BAD_REQUEST, "the body is no JSON") from None
    if not isinstance(body, dict) or not body.keys() <= _FIELDS:
        raise Refused(status.BAD_REQUEST, f"the body is no object of {', '.join(sorted(_FIELDS))}")
    if (cluster_id := _text(body, "clusterId")) is not None:  # bodies are not recorded: to whom was the name given?
        caller_of(request).notes["cluster-id"] = cluster_id[:64]
    return body


def _text(body: Object, key: str) -> str | None:
    value = body.get(key)
    if value is not None and not (isinstance(value, str) and value.isprintable() and len(value) <= 1024):
        raise Refused(status.BAD_REQUEST, f"{key} is no text of at most 1024 printable characters")
    return value


@contextmanager
def _refusing() -> Iterator[None]:
    """What the stores refuse is the caller's to mend."""
    try:
        yield
    except (RegistryError, ConditionError) as error:
        raise Refused(status.BAD_REQUEST, str(error)) from error


def _list(kind: str, items: list[Object]) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {}, "items": items}


def _json(value: Object, code: int = 200) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, status=code, content_type="application/json")
