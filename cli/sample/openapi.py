"""As much OpenAPI as kubectl needs to create and apply without `--validate=false`.

kubectl looks up, for each kind, whether its PATCH takes `fieldValidation` and `dryRun`; if so it leaves
validation to the server. The sample has no schemas and takes any field, so the documents list paths and
parameters only.
"""

from __future__ import annotations

from cli.sample.document import VERSION, Obj
from cli.sample.resources import RESOURCES, Resource

_INFO = {"title": "Kulvert sample API server", "version": VERSION}


def document(path: str) -> Obj | None:
    if path == "/openapi/v2":
        paths = _paths(RESOURCES, _parameters_v2())
        return {"swagger": "2.0", "info": _INFO, "paths": paths, "definitions": {}}
    if path == "/openapi/v3":
        return {"paths": {prefix: {"serverRelativeURL": f"/openapi/v3/{prefix}"} for prefix in _prefixes()}}
    prefix = path.removeprefix("/openapi/v3/")
    if prefix not in _prefixes():
        return None
    served = tuple(r for r in RESOURCES if _prefix(r) == prefix)
    return {"openapi": "3.0.0", "info": _INFO, "components": {"schemas": {}}, "paths": _paths(served, _parameters_v3())}


def _prefix(resource: Resource) -> str:
    return f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"


def _prefixes() -> tuple[str, ...]:
    return tuple(sorted({_prefix(r) for r in RESOURCES}))


def _paths(resources: tuple[Resource, ...], parameters: list[Obj]) -> Obj:
    return {_path(r): {"patch": _operation(r, parameters)} for r in resources if r.stored}


def _path(resource: Resource) -> str:
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    return f"/{_prefix(resource)}{scope}/{resource.plural}/{{name}}"


def _operation(resource: Resource, parameters: list[Obj]) -> Obj:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    return {
        "operationId": f"patch{resource.kind}",
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": kind,
    }


def _parameters_v2() -> list[Obj]:
    return [{"name": name, "in": "query", "type": "string"} for name in ("dryRun", "fieldValidation")]


def _parameters_v3() -> list[Obj]:
    return [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldValidation")]
