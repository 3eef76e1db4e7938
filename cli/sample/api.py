"""From an understood request to whoever answers it."""

from __future__ import annotations

from aiohttp import web

from cli.sample import discovery, openapi, reviews
from cli.sample.accept import View, negotiate
from cli.sample.call import Call, answer
from cli.sample.document import dumps
from cli.sample.exec import Exec
from cli.sample.logs import Logs
from cli.sample.objects import Objects
from cli.sample.resources import PODS, Resource, find
from cli.sample.sources import Sources
from cli.sample.status import method_not_allowed, no_such_path, not_implemented

_HEALTH = ("/healthz", "/livez", "/readyz")
_OF_COLLECTIONS = ("create", "list", "deletecollection")
_UNDONE = ("attach", "portforward")


class Api:
    def __init__(self, objects: Objects, logs: Logs, exec_: Exec, sources: Sources) -> None:
        self._logs = logs
        self._exec = exec_
        self._sources = sources
        self._verbs = {
            "get": objects.get,
            "list": objects.list,
            "watch": objects.watch,
            "create": objects.create,
            "update": objects.update,
            "patch": objects.patch,
            "delete": objects.delete,
            "deletecollection": objects.deletecollection,
        }

    async def serve(self, call: Call) -> web.StreamResponse:
        if not call.asked.resource:
            return _document(call)
        asked = call.asked
        resource = find(asked.group, asked.version, asked.resource)
        if resource is None:
            raise no_such_path()
        if not resource.stored:
            return await reviews.serve(call, resource, self._sources)
        if asked.subresource not in ("", "status"):
            return await self._stream(call, resource)
        return await self._object(call, resource)

    async def _object(self, call: Call, resource: Resource) -> web.StreamResponse:
        verb = call.asked.verb
        known = {name: verbs for name, _, verbs in resource.subresources} | {"": resource.verbs}
        if call.asked.subresource not in known:
            raise no_such_path()
        misplaced = bool(call.asked.name) is (verb in _OF_COLLECTIONS) and verb != "watch"
        if misplaced or verb not in known[call.asked.subresource]:
            raise method_not_allowed()
        return await self._verbs[verb](call, resource)

    async def _stream(self, call: Call, resource: Resource) -> web.StreamResponse:
        subresource = call.asked.subresource
        if resource is not PODS:
            raise no_such_path()
        if subresource in _UNDONE:
            raise not_implemented(subresource.replace("portforward", "port-forward"))
        if subresource == "exec":
            return await self._exec.serve(call)
        if subresource != "log":
            raise no_such_path()
        if call.asked.verb != "get":
            raise method_not_allowed()
        return await self._logs.serve(call)


def _document(call: Call) -> web.StreamResponse:
    """The paths that are about the server and no resource."""
    path = call.asked.path
    if call.asked.verb != "get":
        raise method_not_allowed() if _known(call) else no_such_path()
    if path in _HEALTH:
        return web.Response(text="ok")
    found = _known(call)
    if found is None:
        raise no_such_path()
    negotiate(_without_openapi_types(call), allowed=(View.PLAIN,))
    return answer(dumps(found))


def _known(call: Call) -> object | None:
    path = call.asked.path
    if path.startswith("/openapi/"):
        return openapi.document(path)
    return discovery.document(path, call.request.host)


def _without_openapi_types(call: Call) -> str | None:
    """OpenAPI may be asked for as protobuf alone (by kubectl's v2 client), which takes JSON all the same."""
    return None if call.asked.path.startswith("/openapi/") else call.request.headers.get("Accept")
