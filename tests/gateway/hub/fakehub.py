"""A hub's API in memory, as far as ManagedClusters and Leases go: versions, finalizers, patches, and what was asked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from kubernetes_asyncio import client

from gateway.hub.clusters import CRD, EVENTS, PATH, declared
from gateway.hub.memory import Delta
from gateway.hub.objects import JSON, Answer, HubObjects, HubUnavailable
from gateway.hub.source import Object

Doc = dict[str, Any]


class FakeHub(HubObjects):
    """`tell` hears deltas of ManagedClusters' views at once, as an informer that is never late."""

    def __init__(self) -> None:
        super().__init__(client.ApiClient.__new__(client.ApiClient))
        self.objects: dict[str, Doc] = {}
        self.leases: dict[str, Doc] = {}
        self.events: list[Mapping[str, Any]] = []
        self.asked: list[str] = []
        self.bodies: list[Any] = []
        self.items: dict[str, Any] = {}
        self.tell: list[Callable[[list[Delta[Any]]], None]] = []
        self.fails: HubUnavailable | None = None
        self.status = 0
        """Answered to everything, where it is not 0."""
        self.late = False
        """The informer hears nothing for now."""
        self.crd: Doc | None = {"metadata": {"name": "managedclusters"}}
        self.ocm = False
        self._version = 0

    # --- people

    def apply(self, name: str, accepts: bool = False, **metadata: Any) -> Doc:
        """kubectl apply."""
        before = self.objects.get(name)
        made: Doc = copy.deepcopy(before) if before else {"metadata": {"name": name, "uid": f"uid-{self._version}"}}
        for key, value in metadata.items():
            made["metadata"][key] = {**made["metadata"].get(key, {}), **value}
        made["spec"] = {"hubAcceptsClient": accepts}
        self._put(name, made)
        return made

    def delete_object(self, name: str) -> None:
        """kubectl delete."""
        found = self.objects[name]
        if found["metadata"].get("finalizers"):
            self._put(name, {**found, "metadata": {**found["metadata"], "deletionTimestamp": "now"}})
        else:
            self._gone(name)

    # --- the informer

    def hear_all(self) -> None:
        """It catches up."""
        for name in {*self.objects, *self.items}:
            self._tell(name)

    def _tell(self, name: str) -> None:
        if self.late:
            return
        found = self.objects.get(name)
        before, after = self.items.get(name), declared(found) if found is not None else None
        if before == after:
            return
        if after is None:
            del self.items[name]
        else:
            self.items[name] = after
        for tell in self.tell:
            tell([Delta(name, before, after)])

    def _put(self, name: str, made: Doc) -> None:
        self._version += 1
        made["metadata"] = {**made["metadata"], "resourceVersion": str(self._version)}
        self.objects[name] = made
        self._tell(name)

    def _gone(self, name: str) -> None:
        del self.objects[name]
        self._tell(name)

    # --- the API

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = JSON) -> Answer:
        self.asked.append(f"{method} {path.partition('?')[0]}")
        self.bodies.append(body)
        if self.fails is not None:
            raise self.fails
        if self.status:
            return Answer(self.status, {"reason": "Scripted"})
        if path == EVENTS:
            self.events.append(body or {})
            return Answer(201, {})
        if path == CRD:
            return Answer(200, self.crd) if self.crd is not None else Answer(404, {})
        if "/leases/" in path:
            return self._lease(method, path.partition("?")[0], body)
        if path.startswith(PATH):
            return self._managed(method, path.removeprefix(PATH).strip("/"), body)
        return Answer(200, {}) if self.ocm else Answer(404, {})

    def _lease(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        if method == "PATCH":
            self.leases[path] = dict(body or {})
        elif method == "DELETE":
            return Answer(200, self.leases.pop(path)) if path in self.leases else Answer(404, {})
        return Answer(200, self.leases[path]) if path in self.leases else Answer(404, {})

    def _managed(self, method: str, rest: str, body: Mapping[str, Any] | None) -> Answer:
        name, _, part = rest.partition("/")
        if method == "POST":
            assert body is not None
            name = body["metadata"]["name"]
            if name in self.objects:
                return Answer(409, {})
            self._put(
                name, {**copy.deepcopy(dict(body)), "metadata": {**body["metadata"], "uid": f"uid-{self._version}"}}
            )
            return Answer(201, self.objects[name])
        found = self.objects.get(name)
        if found is None:
            return Answer(404, {})
        if method == "GET":
            return Answer(200, copy.deepcopy(found))
        assert body is not None
        if method == "DELETE":
            if body["preconditions"]["uid"] != found["metadata"]["uid"]:
                return Answer(409, {})
            self.delete_object(name)
            return Answer(200, {})
        if body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            return Answer(409, {})
        if method == "PUT":
            assert part == "status"
            self._put(name, {**found, "status": body["status"]})
        else:
            self._merge(name, found, body)
        return Answer(200, {})

    def _merge(self, name: str, found: Object, patch: Mapping[str, Any]) -> None:
        made = _merged(found, patch)
        metadata = made["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self._gone(name)
        else:
            self._put(name, made)


def _merged(old: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    made = dict(old) if isinstance(old, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made
