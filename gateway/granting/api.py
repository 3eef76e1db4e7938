"""Grants over the management API.

    GET, POST         …/grants         administrators see all, owners those of their clusters, users those naming them
    GET, PUT, DELETE  …/grants/NAME    PUT needs metadata.resourceVersion; DELETE takes ?resourceVersion=

Who may change what, `auth.grants.delegation` says. Grants of a file or of the hub are kept there, and not changed here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import orjson
from aiohttp import web

from auth.grants.delegation import is_administrator, may_change, owned
from auth.grants.grant import Grant, Maker, keys_of
from auth.grants.object import GrantObject, read_object, value_of
from auth.grants.sources import GrantSources
from auth.identity import Identity
from auth.yamlnodes import Value, YamlError
from gateway import status
from gateway.bounded import read_whole
from gateway.database import RegistryError
from gateway.failures import Refused
from gateway.granting.store import GrantConflict, GrantStore, StoredGrant
from gateway.granting.view import STORE, Shown, shown
from gateway.handover import Caller, caller_of
from gateway.management import API_VERSION
from gateway.membership.registry import Cluster, ClusterRegistry
from gateway.status import GATEWAY, Failure

GRANTS = f"/apis/{API_VERSION}/grants"
MOST_BYTES = 65_536
MOST_OF_OWNER = 500
CONFLICT = Failure(409, "Conflict", GATEWAY, "Kulvert's gateway did not change this grant: {}")
NOT_FOUND = Failure(404, "NotFound", GATEWAY, "Kulvert's gateway has no grant {} that you may see")
_log = logging.getLogger(__name__)
Note = Callable[[Caller, Mapping[str, str]], None]


def log_note(caller: Caller, notes: Mapping[str, str]) -> None:
    """A line of the log, which its audit id ties to the request's audit record."""
    user = caller.identity.user if caller.identity else ""
    _log.info("a change of a grant", extra={"audit_id": caller.audit_id, "user": user, **notes})


@dataclass(frozen=True, slots=True)
class GrantsApi:
    """`note` takes what the audit record of a change should hold besides: grant, change and result."""

    store: GrantStore
    sources: GrantSources
    registry: ClusterRegistry
    wall: Callable[[], float]
    admin_groups: frozenset[str] = frozenset({"kulvert:admins"})
    note: Note = log_note

    def routes(self) -> list[web.RouteDef]:
        """For the management application."""
        return [
            web.get(GRANTS, self._list),
            web.post(GRANTS, self._create),
            web.get(f"{GRANTS}/{{name}}", self._get),
            web.put(f"{GRANTS}/{{name}}", self._replace),
            web.delete(f"{GRANTS}/{{name}}", self._delete),
        ]

    # --- reading

    async def _list(self, request: web.Request) -> web.Response:
        found = self._visible(identity_of(request))
        items = [one.object for one in found]
        return json_answer({"apiVersion": API_VERSION, "kind": "GrantList", "metadata": {}, "items": items})

    async def _get(self, request: web.Request) -> web.Response:
        return json_answer(self._seen(identity_of(request), request.match_info["name"]).object)

    # --- changing

    async def _create(self, request: web.Request) -> web.Response:
        caller, identity = caller_of(request), identity_of(request)
        wanted = await _grant(request)
        name = wanted.grant.name
        with self._noting(caller, name, "create"):
            self._check(identity, None, wanted.grant)
            self._check_free(name)
            self._check_room(identity)
            self.store.create(self._made(identity, wanted.grant), wanted.labels, identity.user, self.wall())
        return json_answer(self._row(name).object, 201)

    async def _replace(self, request: web.Request) -> web.Response:
        caller, identity = caller_of(request), identity_of(request)
        wanted, name = await _grant(request), request.match_info["name"]
        with self._noting(caller, name, "update"):
            if wanted.grant.name != name:
                raise Refused(status.BAD_REQUEST, f"the grant in the body is {wanted.grant.name!r}")
            row = self._stored(identity, name)
            _check_version(row, wanted.version or "")
            self._check(identity, row.grant or Grant(name), wanted.grant)
            made = self._made(identity, wanted.grant)
            self.store.replace(row.version, made, wanted.labels, identity.user, self.wall())
        return json_answer(self._row(name).object)

    async def _delete(self, request: web.Request) -> web.Response:
        caller, identity, name = caller_of(request), identity_of(request), request.match_info["name"]
        with self._noting(caller, name, "delete"):
            row = self._stored(identity, name)
            _check_version(row, request.query.get("resourceVersion", str(row.version)))
            self._check(identity, row.grant or Grant(name), None)
            self.store.delete(name, row.version, identity.user, self.wall())
        return json_answer({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success"})

    def _check(self, identity: Identity, old: Grant | None, new: Grant | None) -> None:
        """What cannot be read counts as an administrator's."""
        if why := may_change(identity, old, new, self.sources.grants, self.admin_groups, self.wall()):
            raise Refused(status.FORBIDDEN, why)

    def _made(self, identity: Identity, grant: Grant) -> Grant:
        """Whoever writes last stands for it: an administrator for good, an owner as long as he could do it again."""
        if is_administrator(identity, self.admin_groups):
            return grant
        return replace(grant, maker=Maker(identity.user, identity.groups, identity.source))

    # --- what there is

    def _visible(self, identity: Identity) -> list[Shown]:
        """An owner sees who reaches his clusters: those that there are now."""
        found = shown(self.sources, self.store)
        if is_administrator(identity, self.admin_groups):
            return found
        keys, mine = frozenset(keys_of(identity)), self._clusters_of(identity)
        return [one for one in found if one.grant is not None and _concerns(one.grant, keys, mine)]

    def _clusters_of(self, identity: Identity) -> list[Cluster]:
        grants = owned(identity, self.sources.grants, self.wall())
        return [c for c in self.registry.list() if any(grant.covers(c.name, c.labels) for grant in grants)]

    def _seen(self, identity: Identity, name: str) -> Shown:
        for one in self._visible(identity):
            if one.name == name:
                return one
        raise Refused(NOT_FOUND, repr(name))

    def _stored(self, identity: Identity, name: str) -> StoredGrant:
        """The one to be changed; it must be seen first, so that names are not to be guessed."""
        found = [one for one in self._visible(identity) if one.name == name]
        if not found:
            raise Refused(NOT_FOUND, repr(name))
        for one in found:
            if one.stored is not None:
                return one.stored
        raise Refused(CONFLICT, f"grant {name!r} is kept in {found[0].source}: change it there")

    def _row(self, name: str) -> Shown:
        return next(one for one in shown(self.sources, self.store) if one.name == name and one.stored is not None)

    def _check_free(self, name: str) -> None:
        for one in self.sources.listed:
            if one.grant.name == name and one.source != STORE:
                raise Refused(CONFLICT, f"there is a grant {name!r} in {one.source}")

    def _check_room(self, identity: Identity) -> None:
        """The store is everybody's: one owner must not fill it."""
        if is_administrator(identity, self.admin_groups):
            return
        mine = sum(row.maker is not None and row.maker.user == identity.user for row in self.store.list())
        if mine >= MOST_OF_OWNER:
            raise Refused(CONFLICT, f"you have made {MOST_OF_OWNER} grants, which is the most: use groups and patterns")

    @contextmanager
    def _noting(self, caller: Caller, name: str, change: str) -> Iterator[None]:
        """What was tried is noted as well as what was done."""
        result = "failed"
        try:
            yield
            result = "done"
        except GrantConflict as conflict:
            result = str(conflict)
            raise Refused(CONFLICT, result) from None
        except RegistryError as error:
            result = str(error)
            raise Refused(status.BAD_REQUEST, result) from None
        except Refused as refused:
            result = refused.detail
            raise
        finally:
            self.note(caller, {"grant": name, "change": change, "result": result})


def identity_of(request: web.Request) -> Identity:
    """Who asks. :raises Refused: nobody."""
    identity = caller_of(request).identity
    if identity is None:
        raise Refused(status.UNAUTHENTICATED, "this path is not public")
    return identity


async def document_of(request: web.Request) -> Value:
    """The body, a JSON document. :raises Refused: it is none, or too large.

    A page of somebody else's cannot make a browser send this type, with its user's certificate, unasked.
    """
    if request.content_type != "application/json":
        raise Refused(status.BAD_REQUEST, "send Content-Type: application/json")
    if (body := await read_whole(request.content, MOST_BYTES)) is None:
        raise Refused(status.TOO_LARGE, f"a grant has {MOST_BYTES} bytes at most")
    try:
        return value_of(orjson.loads(body), "the body")
    except orjson.JSONDecodeError:
        raise Refused(status.BAD_REQUEST, "the body is no JSON") from None
    except YamlError as error:
        raise Refused(status.BAD_REQUEST, str(error)) from None


async def _grant(request: web.Request) -> GrantObject:
    value = await document_of(request)
    try:
        return read_object(value)
    except YamlError as error:
        raise Refused(status.BAD_REQUEST, str(error)) from None


def _concerns(grant: Grant, keys: frozenset[str], mine: list[Cluster]) -> bool:
    return not keys.isdisjoint(grant.subject_keys()) or any(grant.covers(c.name, c.labels) for c in mine)


def _check_version(row: StoredGrant, asked: str) -> None:
    """The state that was judged is the one that is replaced."""
    if not asked:
        raise Refused(
            status.BAD_REQUEST, "metadata.resourceVersion is missing: read the grant, and send it back changed"
        )
    if asked != str(row.version):
        raise Refused(CONFLICT, f"grant {row.name!r} has been changed meanwhile: read it again")


def json_answer(value: object, code: int = 200) -> web.Response:
    """A document as an answer."""
    body = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, status=code, content_type="application/json")
