"""The two questions a caller may ask about itself: who am I, and may I?"""

from __future__ import annotations

from aiohttp import web

from cli.sample import body
from cli.sample.attributes import Attributes
from cli.sample.call import Call, answer
from cli.sample.callers import Caller
from cli.sample.document import Obj, dumps, timestamp
from cli.sample.resources import WHOAMI, Resource
from cli.sample.rules import allowed
from cli.sample.sources import Sources
from cli.sample.status import bad_request, method_not_allowed


async def serve(call: Call, resource: Resource, sources: Sources) -> web.StreamResponse:
    if call.asked.verb != "create" or call.asked.name:
        raise method_not_allowed()
    review = await body.document(call.request)
    metadata = {"creationTimestamp": timestamp(sources.now())}
    result = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    if resource is WHOAMI:
        return answer(dumps(result | {"status": {"userInfo": _user_info(call.caller)}}), 201)
    spec = review.get("spec") or {}
    verdict = allowed(call.caller, _question(spec))
    reason = {} if verdict else {"reason": "no rule of the sample allows it"}
    return answer(dumps(result | {"spec": spec, "status": {"allowed": verdict} | reason}), 201)


def _user_info(caller: Caller) -> Obj:
    info: Obj = {"username": caller.name, "uid": caller.uid, "groups": list(caller.groups)}
    info["extra"] = {key: list(values) for key, values in caller.extra}
    return {key: value for key, value in info.items() if value}


def _question(spec: Obj) -> Attributes:
    about, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(about, dict):
        keys = ("group", "version", "resource", "subresource", "namespace", "name")
        return Attributes(str(about.get("verb", "")), "", **{key: str(about.get(key, "")) for key in keys})
    if isinstance(path, dict):
        return Attributes(str(path.get("verb", "")), str(path.get("path", "")))
    raise bad_request("spec: exactly one of resourceAttributes and nonResourceAttributes must be set")
