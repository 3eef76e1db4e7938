"""Discovery, the plain form: kubectl asks for the aggregated one, is given this, and understands.

A client that accepts *only* the aggregated form gets a 406, as from an old kube-apiserver.
"""

from __future__ import annotations

from cli.sample.document import VERSION, Obj
from cli.sample.resources import RESOURCES, Resource


def document(path: str, address: str) -> Obj | None:
    """The discovery document at a path, or None where there is none."""
    parts = path.strip("/").split("/")
    if parts == ["version"]:
        return version()
    if parts == ["api"]:
        return _versions(address)
    if parts == ["apis"]:
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(g) for g in _groups()]}
    if parts == ["api", "v1"]:
        return _resources("", "v1")
    if parts[0] == "apis" and len(parts) > 1 and parts[1] in _groups():
        return _of_group(parts[1], parts[2:])
    return None


def version() -> Obj:
    major, minor = VERSION.removeprefix("v").split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": VERSION,
        "gitCommit": "kulvert-sample",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": "kulvert/sample",
    }


def _of_group(group: str, rest: list[str]) -> Obj | None:
    if not rest:
        return {"kind": "APIGroup", "apiVersion": "v1"} | _group(group)
    return _resources(group, rest[0]) if rest == ["v1"] else None


def _groups() -> tuple[str, ...]:
    return tuple(sorted({r.group for r in RESOURCES if r.group}))


def _group(group: str) -> Obj:
    entry = {"groupVersion": f"{group}/v1", "version": "v1"}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def _versions(address: str) -> Obj:
    server = {"clientCIDR": "0.0.0.0/0", "serverAddress": address}
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [server]}


def _resources(group: str, version: str) -> Obj:
    entries = [entry for r in RESOURCES if (r.group, r.version) == (group, version) for entry in _entries(r)]
    served = {"groupVersion": f"{group}/{version}" if group else version, "resources": entries}
    return {"kind": "APIResourceList", "apiVersion": "v1"} | served


def _entries(resource: Resource) -> list[Obj]:
    main: Obj = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short:
        main["shortNames"] = list(resource.short)
    if resource.kind in ("Pod", "Service"):
        main["categories"] = ["all"]
    return [main, *(_subresource(resource, *sub) for sub in resource.subresources)]


def _subresource(resource: Resource, name: str, kind: str, verbs: tuple[str, ...]) -> Obj:
    return {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": kind,
        "verbs": list(verbs),
    }
