"""An OIDC issuer that can be made to lie, stall, rotate its keys, and forget. It notices refresh tokens used twice."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

Document = dict[str, Any]


class FakeIssuer:
    """An application; `url` is set by who serves it. What a test changes: the attributes, and `claims`, `discovery`,
    `callback`, which may rewrite what is about to be said.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.url = ""
        self.lifetime = 300.0
        self.keys = [_Key()]
        self.asked: list[str] = []
        self.codes: dict[str, Document] = {}
        self.refresh_tokens: set[str] = set()
        self.used_up: set[str] = set()
        self.revoked: list[str] = []
        self.reused = 0
        self.device_answers: list[str] = []
        self.overrides: dict[str, tuple[int, bytes]] = {}
        self.delay: dict[str, float] = {}
        self.claims: Callable[[Document], None] = lambda _: None
        self.discovery: Callable[[Document], None] = lambda _: None
        self.callback: Callable[[Document], None] = lambda _: None
        self.sign: Callable[[Document], str] | None = None
        self.rotates = True
        self.with_id_token = True

    def application(self) -> web.Application:
        """Its doors."""
        app = web.Application(middlewares=[self._told])
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/keys", self._jwks)
        app.router.add_get("/auth", self._auth)
        app.router.add_post("/token", self._token)
        app.router.add_post("/device", self._device)
        app.router.add_post("/revoke", self._revoke)
        return app

    def rotate(self) -> None:
        """New keys; the old ones are forgotten at once."""
        self.keys = [_Key()]

    def count(self, path: str) -> int:
        """How often a door was knocked at."""
        return self.asked.count(path)

    @web.middleware
    async def _told(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        await asyncio.sleep(self.delay.get(request.path, 0.0))
        if request.path in self.overrides:
            status, body = self.overrides[request.path]
            response: web.StreamResponse = web.Response(status=status, body=body)
            if 300 <= status < 400:
                response.headers["Location"] = body.decode()
        else:
            response = await handler(request)
        response.headers["Date"] = formatdate(self.clock(), usegmt=True)
        return response

    async def _discovery(self, request: web.Request) -> web.Response:
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/auth",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "device_authorization_endpoint": f"{self.url}/device",
            "revocation_endpoint": f"{self.url}/revoke",
        }
        self.discovery(document)
        return web.json_response({name: value for name, value in document.items() if value is not None})

    async def _jwks(self, request: web.Request) -> web.Response:
        return web.json_response({"keys": [key.jwk for key in self.keys]})

    async def _auth(self, request: web.Request) -> web.Response:
        code = secrets.token_hex(8)
        self.codes[code] = dict(request.query)
        answer = {"code": code, "state": request.query["state"]}
        self.callback(answer)
        raise web.HTTPFound(f"{request.query['redirect_uri']}?{urlencode(answer)}")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        grant = form["grant_type"]
        if grant == "authorization_code":
            asked = self.codes.pop(str(form["code"]), None)
            verifier = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
            challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
            if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
                return _no("invalid_grant")
            return self._tokens({"nonce": asked["nonce"]})
        if grant == "refresh_token":
            return self._refreshed(str(form["refresh_token"]))
        answer = self.device_answers.pop(0) if self.device_answers else ""
        return _no(answer) if answer else self._tokens({})

    def _refreshed(self, token: str) -> web.Response:
        if token in self.used_up:
            self.reused += 1
            self.refresh_tokens.clear()
        if token not in self.refresh_tokens:
            return _no("invalid_grant")
        if self.rotates:
            self.refresh_tokens.remove(token)
            self.used_up.add(token)
        return self._tokens({})

    def _tokens(self, more: Document) -> web.Response:
        now = self.clock()
        claims: Document = {"iss": self.url, "aud": "kulvert", "sub": "ada", "email": "ada@example.com"}
        claims |= {"iat": int(now), "exp": int(now + self.lifetime)} | more
        self.claims(claims)
        token = self.sign(claims) if self.sign else self.keys[0].sign(claims)
        refresh_token = secrets.token_hex(8)
        self.refresh_tokens.add(refresh_token)
        found = {"refresh_token": refresh_token, "access_token": "unused", "token_type": "Bearer"}
        return web.json_response(found | ({"id_token": token} if self.with_id_token else {}))

    async def _device(self, request: web.Request) -> web.Response:
        found = {"device_code": "the-device", "user_code": "ABCD-EFGH", "interval": 5, "expires_in": 300}
        return web.json_response(found | {"verification_uri": f"{self.url}/enter"})

    async def _revoke(self, request: web.Request) -> web.Response:
        self.revoked.append(str((await request.post())["token"]))
        return web.Response()


class _Key:
    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self.kid = secrets.token_hex(4)

    @property
    def jwk(self) -> Document:
        found = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._private.public_key()))
        return {**found, "kid": self.kid, "use": "sig", "alg": "ES256"}

    def sign(self, claims: Document) -> str:
        return jwt.encode(claims, self._private, "ES256", headers={"kid": self.kid})


def _no(error: str) -> web.Response:
    return web.json_response({"error": error, "error_description": "so it is"}, status=400)
