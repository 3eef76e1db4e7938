"""The public halves of the token keys, for whoever verifies Kulvert's tokens: in the places where Kubernetes and OpenID
Connect look for them. Public, and fit for caches: a new key is published long before it signs.
"""

from __future__ import annotations

from typing import Final

import orjson
from aiohttp import web

from auth.tokenkeys import jwk
from gateway import status
from gateway.failures import Refused
from gateway.issuing.tokenkeys import TokenKeys

JWKS: Final = "/openid/v1/jwks"
DISCOVERY: Final = "/.well-known/openid-configuration"
PUBLIC: Final = frozenset((JWKS.encode(), DISCOVERY.encode()))
"""Served without credentials, to GET and HEAD."""
_CACHE: Final = {"Cache-Control": "public, max-age=300"}


class JwksApi:
    """The two documents. The second one needs an issuer that is an address."""

    def __init__(self, keys: TokenKeys) -> None:
        self._keys = keys

    def routes(self) -> list[web.RouteDef]:
        """For the management application."""
        return [web.get(JWKS, self._jwks), web.get(DISCOVERY, self._discovery)]

    async def _jwks(self, request: web.Request) -> web.Response:
        keys = [jwk(key.verification) for key in self._keys.ring.keys]
        return _document({"keys": keys}, "application/jwk-set+json")

    async def _discovery(self, request: web.Request) -> web.Response:
        if not self._keys.publishes:
            raise Refused(status.PATH_NOT_FOUND)
        issuer = self._keys.ring.issuer
        document = {
            "issuer": issuer,
            "jwks_uri": issuer + JWKS,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        return _document(document, "application/json")


def _document(value: object, kind: str) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type=kind, headers=_CACHE)
