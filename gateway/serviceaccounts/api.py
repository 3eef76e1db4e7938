"""Managed service accounts in the management API: for whoever may manage a cluster, and shown to their holders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import orjson
from aiohttp import web

from auth.identity import Identity
from gateway import status
from gateway.bounded import read_whole
from gateway.database import RegistryError
from gateway.failures import Refused
from gateway.handover import caller_of
from gateway.serviceaccounts.store import Key, Managed, ServiceAccountStore
from gateway.serviceaccounts.view import API_VERSION, KIND, read, shown

LIST: Final = f"/apis/{API_VERSION}/managedserviceaccounts"
ONE: Final = f"/apis/{API_VERSION}/clusters/{{cluster}}/managedserviceaccounts/{{namespace}}/{{name}}"
_MAX_BYTES: Final = 16_384

May: TypeAlias = Callable[[Identity, str], bool]
"""Whether somebody manages a cluster (its owner, a platform administrator): nobody else makes credentials of it."""


class ServiceAccountsApi:
    """The endpoints. `registered` says whether there is a cluster of a name; `wall` tells the time."""

    def __init__(
        self,
        store: ServiceAccountStore,
        may: May,
        registered: Callable[[str], bool],
        enabled: bool,
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._may = may
        self._registered = registered
        self._enabled = enabled
        self._wall = wall

    def routes(self) -> list[web.RouteDef]:
        """For the management application."""
        return [
            web.get(LIST, self._list),
            web.get(ONE, self._get),
            web.put(ONE, self._put),
            web.delete(ONE, self._delete),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        identity = _caller(request)
        items = [shown(managed) for managed in self._store.list() if self._sees(identity, managed)]
        return _json({"apiVersion": API_VERSION, "kind": f"{KIND}List", "metadata": {}, "items": items})

    async def _get(self, request: web.Request) -> web.Response:
        identity = _caller(request)
        managed = self._store.get(_key(request))
        if managed is None or not self._sees(identity, managed):
            raise Refused(status.FORBIDDEN, "you see no such managed service account")
        return _json(shown(managed))

    async def _put(self, request: web.Request) -> web.Response:
        """Declares one: made if it is not there. What a token is for cannot be changed behind its holder's back."""
        identity, key = self._manager(request)
        if not self._enabled:
            raise Refused(status.FORBIDDEN, "this server manages no service accounts (serviceAccounts.enabled)")
        with _refusing():
            wanted = read(await _document(request))
            if wanted.key != key:
                raise RegistryError("the object's cluster, namespace and name are not those of its URL")
            managed = self._store.put(wanted, identity.user, self._wall())
        return _json(shown(managed))

    async def _delete(self, request: web.Request) -> web.Response:
        identity, key = self._manager(request)
        if self._store.get(key) is None:
            raise Refused(status.FORBIDDEN, "there is no such managed service account")
        with _refusing():
            managed = self._store.delete(key, identity.user, self._wall())
        return _json(shown(managed))

    def _manager(self, request: web.Request) -> tuple[Identity, Key]:
        identity, key = _caller(request), _key(request)
        if not self._may(identity, key[0]):
            raise Refused(status.FORBIDDEN, f"you do not manage the cluster {key[0][:63]!a}")
        if not self._registered(key[0]):
            raise Refused(status.CLUSTER_NOT_FOUND, key[0][:63])
        return identity, key

    def _sees(self, identity: Identity, managed: Managed) -> bool:
        return managed.wanted.holder == identity.user or self._may(identity, managed.wanted.cluster)


def _caller(request: web.Request) -> Identity:
    identity = caller_of(request).identity
    if identity is None:
        raise Refused(status.UNAUTHENTICATED, "this path is not public")
    return identity


def _key(request: web.Request) -> Key:
    return request.match_info["cluster"], request.match_info["namespace"], request.match_info["name"]


async def _document(request: web.Request) -> object:
    if (body := await read_whole(request.content, _MAX_BYTES)) is None:
        raise Refused(status.TOO_LARGE, f"a {KIND} has {_MAX_BYTES} bytes at most")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(status.BAD_REQUEST, "the body is no JSON") from None


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except RegistryError as error:
        raise Refused(status.BAD_REQUEST, str(error)) from None


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE), content_type="application/json")
