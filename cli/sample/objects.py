"""Reading and writing objects: one method for each verb."""

from __future__ import annotations

from aiohttp import web

from cli.sample import body, lists, patches, selectors
from cli.sample.accept import View, negotiate
from cli.sample.admission import Admission
from cli.sample.call import Call, answer
from cli.sample.document import Obj, dumps
from cli.sample.pods import PodHost
from cli.sample.render import Renderer
from cli.sample.resources import NAMESPACES, Resource
from cli.sample.selectors import Selection
from cli.sample.status import conflict, forbidden, invalid, success, unsupported_media_type
from cli.sample.store import Store, Stored
from cli.sample.watches import Watch, terms

_PERMANENT = ("default", "kube-system")


class Objects:
    def __init__(self, store: Store, admission: Admission, pods: PodHost, bookmark_every: float) -> None:
        self._store = store
        self._admission = admission
        self._pods = pods
        self._bookmark_every = bookmark_every

    async def get(self, call: Call, resource: Resource) -> web.StreamResponse:
        lists.check_version(self._store, call.query)
        return answer(self._renderer(call, resource).one(self._existing(call, resource)))

    async def list(self, call: Call, resource: Resource) -> web.StreamResponse:
        renderer, chosen = self._renderer(call, resource), _selection(call, resource)
        lists.check_version(self._store, call.query)
        limit, token = call.number("limit") or 0, call.query.get("continue", "")
        page = lists.page(self._store, resource, chosen, limit, token)
        return answer(renderer.many(page.items, page.metadata))

    async def watch(self, call: Call, resource: Resource) -> web.StreamResponse:
        collection = self._store.collection(resource)
        watch = Watch(self._store, collection, _selection(call, resource), self._renderer(call, resource))
        call.number("resourceVersion"), call.number("timeoutSeconds")
        asked = terms(call.query)
        first, position = watch.start(asked)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(call.request)
        if first:
            await response.write(first)
        async for data in watch.run(asked, position, self._bookmark_every):
            await response.write(data)
        await response.write_eof()
        return response

    async def create(self, call: Call, resource: Resource) -> web.StreamResponse:
        renderer = self._renderer(call, resource)
        namespace = self._namespace(call, resource)
        data = self._admission.new(resource, namespace, await body.document(call.request))
        if resource.namespaced:
            self._store.get(NAMESPACES, "", namespace)
        if call.dry_run:
            return answer(dumps(data), 201)
        return answer(renderer.one(self._store.create(resource, data)), 201)

    async def update(self, call: Call, resource: Resource) -> web.StreamResponse:
        data = await body.document(call.request)
        return self._write(call, resource, self._existing(call, resource), data)

    async def patch(self, call: Call, resource: Resource) -> web.StreamResponse:
        media_type = call.request.content_type
        if media_type not in patches.TYPES:
            raise unsupported_media_type(", ".join(patches.TYPES))
        patch = body.parse_json(await body.read(call.request))
        before = self._existing(call, resource)
        return self._write(call, resource, before, patches.apply(media_type, before.data, patch))

    async def delete(self, call: Call, resource: Resource) -> web.StreamResponse:
        options = await body.options(call.request)
        before = self._existing(call, resource)
        self._check_delete(resource, before, options.get("preconditions") or {})
        if not _is_dry(call, options):
            self._remove(resource, before)
        details = {"name": before.key[1], "group": resource.group, "kind": resource.plural, "uid": before.uid}
        return answer(dumps(success({key: value for key, value in details.items() if value})))

    async def deletecollection(self, call: Call, resource: Resource) -> web.StreamResponse:
        renderer, options = self._renderer(call, resource), await body.options(call.request)
        page = lists.page(self._store, resource, _selection(call, resource), 0, "")
        for stored in page.items:
            self._check_delete(resource, stored, {})
            if not _is_dry(call, options):
                self._remove(resource, stored)
        return answer(renderer.many(page.items, {"resourceVersion": str(self._store.version)}))

    def _write(self, call: Call, resource: Resource, before: Stored, body: Obj) -> web.StreamResponse:
        """A write that changes nothing makes no new version, as in kube-apiserver."""
        renderer = self._renderer(call, resource)
        data = self._admission.changed(resource, before, body, call.asked.subresource)
        data["metadata"] = data["metadata"] | {"resourceVersion": str(before.version)}
        if call.dry_run:
            return answer(dumps(data))
        if data == before.data:
            return answer(renderer.one(before))
        return answer(renderer.one(self._store.replace(resource, before, data)))

    def _remove(self, resource: Resource, stored: Stored) -> None:
        if resource is NAMESPACES:
            for kind, inner in list(self._store.everything_in(stored.key[1])):
                self._remove(kind, inner)
        self._store.delete(resource, stored)
        self._pods.stop(stored.uid)

    def _check_delete(self, resource: Resource, stored: Stored, preconditions: Obj) -> None:
        name = stored.key[1]
        if resource is NAMESPACES and name in _PERMANENT:
            raise forbidden("namespaces", name, "this namespace may not be deleted")
        actual = {"uid": stored.uid, "resourceVersion": str(stored.version)}
        for field, value in preconditions.items():
            if value and actual.get(field) != value:
                why = f"Precondition failed: {field} in precondition: {value}, in object: {actual.get(field)}"
                raise conflict(resource.qualified, name, why)

    def _existing(self, call: Call, resource: Resource) -> Stored:
        return self._store.get(resource, self._namespace(call, resource), call.asked.name)

    def _namespace(self, call: Call, resource: Resource) -> str:
        if not resource.namespaced:
            return ""
        if not call.asked.namespace:
            raise invalid(resource.kind, call.asked.name, "metadata.namespace", "Required value")
        return call.asked.namespace

    def _renderer(self, call: Call, resource: Resource) -> Renderer:
        view = negotiate(call.request.headers.get("Accept"), allowed=tuple(View))
        include = call.query.get("includeObject", "") or "Metadata"
        return Renderer(resource, view, self._admission.sources.now(), include)


def _selection(call: Call, resource: Resource) -> Selection:
    return selectors.selection(resource, call.asked.namespace, call.asked.name, call.query)


def _is_dry(call: Call, options: Obj) -> bool:
    return call.dry_run or options.get("dryRun") == ["All"]
