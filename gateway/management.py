"""Kulvert's own HTTP endpoints: health, metrics, version, and the list of clusters. An ordinary aiohttp application.

The pipeline has authenticated whoever gets here, but for the public health paths; each handler authorises by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry

from auth.authenticator import AuthenticationUnavailable
from auth.identity import Identity
from gateway import status
from gateway.access import Decide
from gateway.failures import Refused
from gateway.handover import Caller, caller_of
from gateway.membership.registry import Cluster, ClusterRegistry
from gateway.metrics import exposition
from gateway.replicas.keeping import Keeping, kept_before_answered
from gateway.settling import settled

API_VERSION = "kulvert.dev/v1alpha1"
CLUSTERS = f"/apis/{API_VERSION}/clusters"
AT_ONCE = 64
"""Clusters of a list about which the hub is asked at a time: one after the other, thousands take minutes."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_log = logging.getLogger(__name__)

Check = Callable[[], str | None]
"""A health check: None where all is well, else what is wrong, in words fit for anybody (the endpoint is public)."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A cluster's agents, as the stub sees them."""

    agents: int = 0
    ready: int = 0
    message: str = ""


async def nothing_to_ask(_clusters: Collection[str]) -> None:
    """All that is shown of clusters is known here."""


@dataclass(frozen=True, slots=True)
class Management:
    """What the endpoints show."""

    registry: ClusterRegistry
    grants: Decide
    attached: Callable[[str], Attached]
    metrics: CollectorRegistry
    checks: Mapping[str, Check]
    version: str
    wall: Callable[[], float]
    metrics_group: str = "kulvert:admins"
    routes: Iterable[web.RouteDef] = ()
    """Further endpoints, of modules of their own."""
    warnings: Mapping[str, Check] = field(default_factory=dict)
    """Checks of what this process can do without for a while: their failure is shown, and takes no replica out."""
    shown: Callable[[Cluster], Mapping[str, object]] | None = None
    """A cluster as the API shows it."""
    keeping: Keeping | None = None
    """Where there are several replicas: see `gateway.replicas.keeping`."""
    refresh: Callable[[Collection[str]], Awaitable[None]] = nothing_to_ask
    """Before clusters are shown whose agents may be elsewhere."""

    def application(self) -> web.Application:
        """The application, for `web.AppRunner`. It answers every error as a Status."""
        keeping = (kept_before_answered(self.keeping),) if self.keeping is not None else ()
        app = web.Application(middlewares=[_as_status, *keeping])
        for path in ("/healthz", "/livez"):
            app.router.add_get(path, self._alive)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/version", self._version)
        app.router.add_get(CLUSTERS, self._clusters)
        app.router.add_routes(self.routes)
        return app

    # --- health: public

    async def _alive(self, request: web.Request) -> web.Response:
        """This process answers: that is all a liveness probe may ask, or an outage elsewhere would restart it."""
        return _health(request, {"ping": None})

    async def _ready(self, request: web.Request) -> web.Response:
        checks = {"ping": None} | {name: check() for name, check in self.checks.items()}
        return _health(request, checks, {name: check() for name, check in self.warnings.items()})

    # --- for authenticated users

    async def _version(self, request: web.Request) -> web.Response:
        return _json({"kulvert": self.version})

    async def _metrics(self, request: web.Request) -> web.Response:
        if self.metrics_group not in _identity(request).groups:
            raise Refused(status.FORBIDDEN, f"metrics are for group {self.metrics_group!r}")
        return web.Response(body=exposition(self.metrics), headers={"Content-Type": METRICS_TYPE})

    async def _clusters(self, request: web.Request) -> web.Response:
        """The clusters that the caller may reach, and nobody else's."""
        identity, known = _identity(request), self.registry.list()
        allowed: list[Cluster] = []
        for at in range(0, len(known), AT_ONCE):
            some = known[at : at + AT_ONCE]
            reached = await asyncio.gather(*(self._reached(identity, cluster) for cluster in some))
            allowed += [cluster for cluster, may in zip(some, reached, strict=True) if may]
        await self.refresh([cluster.name for cluster in allowed])
        shown = self.shown or (lambda cluster: _shown(cluster, self.attached(cluster.name)))
        items = [shown(cluster) for cluster in allowed]
        return _json({"apiVersion": API_VERSION, "kind": "ClusterList", "metadata": {}, "items": items})

    async def _reached(self, identity: Identity, cluster: Cluster) -> bool:
        now = self.wall()
        decision = await settled(lambda: self.grants.decide(identity, cluster.name, now, None, cluster.labels))
        return decision.allowed


def _identity(request: web.Request) -> Identity:
    identity = caller_of(request).identity
    if identity is None:
        raise Refused(status.UNAUTHENTICATED, "this path is not public")
    return identity


def _health(
    request: web.Request, checks: Mapping[str, str | None], warnings: Mapping[str, str | None] | None = None
) -> web.Response:
    """As kube-apiserver writes it: `ok`, or a line for each check; what only warns is shown there too."""
    failed = [name for name, problem in checks.items() if problem is not None]
    code = 503 if failed else 200
    if not failed and "verbose" not in request.query:
        return web.Response(text="ok", status=code)
    lines = [f"[+]{name} ok" if problem is None else f"[-]{name} failed: {problem}" for name, problem in checks.items()]
    lines += [f"[!]{name} degraded: {problem}" for name, problem in (warnings or {}).items() if problem is not None]
    name = request.path.lstrip("/")
    return web.Response(text="\n".join([*lines, f"{name} check {'failed' if failed else 'passed'}", ""]), status=code)


def _shown(cluster: Cluster, attached: Attached) -> dict[str, object]:
    return {
        "metadata": {
            "name": cluster.name,
            "creationTimestamp": datetime.fromtimestamp(cluster.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "labels": dict(cluster.labels),
        },
        "status": {
            "clusterId": cluster.uid or "",
            "ready": attached.ready > 0,
            "agents": attached.agents,
            "readyAgents": attached.ready,
            "message": attached.message,
        },
    }


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE), content_type="application/json")


@web.middleware
async def _as_status(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Failures leave as Status objects; what nobody planned is logged with its audit id, and tells the user no more."""
    if request.transport is None:
        return web.Response()  # who asked has gone before this has begun
    caller = caller_of(request)
    try:
        return await handler(request)
    except Refused as refused:
        return _refused(refused, caller)
    except AuthenticationUnavailable as unavailable:
        return _refused(Refused(status.AUTHENTICATION_UNAVAILABLE, unavailable.reason, retry_after=1), caller)
    except web.HTTPNotFound:
        return _refused(Refused(status.PATH_NOT_FOUND), caller)
    except web.HTTPException as error:
        allow: Iterable[tuple[str, str]] = [("Allow", error.headers["Allow"])] if "Allow" in error.headers else []
        body = status.status(
            error.status, error.reason, f"Kulvert's gateway: {error.reason}", status.GATEWAY, caller.audit_id
        )
        return web.Response(body=body, status=error.status, headers=[("Content-Type", "application/json"), *allow])
    except Exception:
        _log.exception("the management API failed", extra={"audit_id": caller.audit_id})
        return _refused(Refused(status.INTERNAL_ERROR), caller)


def _refused(refused: Refused, caller: Caller) -> web.Response:
    answer = refused.answer(caller.audit_id)
    headers = [(name.decode(), value.decode()) for name, value in answer.headers]
    return web.Response(body=answer.body, status=answer.code, headers=headers)
