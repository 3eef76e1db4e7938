"""The gateway's management API, as people's programs use it."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from tempfile import NamedTemporaryFile
from typing import Any

from cli.failures import Failed
from cli.login.address import plain
from cli.login.web import Answer, Unreachable, Web

API_VERSION = "kulvert.dev/v1alpha1"
API = f"/apis/{API_VERSION}"
CONFIGURATION = "/.well-known/kulvert-configuration"
MOST_CLUSTERS = 100_000
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Configuration:
    """How people sign in at a gateway, as it says itself. Without an issuer it has no such way."""

    issuer: str = ""
    client_id: str = ""
    scopes: tuple[str, ...] = ()
    redirect_host: str = ""


def trust(ca: str) -> ssl.SSLContext:
    """A gateway's authority alone where one is named, else the system's. :raises Failed: it is none."""
    try:
        return ssl.create_default_context(cadata=ca or None)
    except (ssl.SSLError, ValueError):
        raise Failed("--certificate-authority is no PEM bundle: name the CA's certificate") from None


def show_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Have TLS show a client certificate. The library reads files alone, so there is a private one for a moment."""
    with NamedTemporaryFile(prefix="kulvert-") as file:
        file.write(f"{certificate}\n{key}".encode())
        file.flush()
        context.load_cert_chain(file.name)


class GatewayApi:
    """One gateway. `bearer` is asked for nothing but its own API. :raises Unreachable: from every method."""

    def __init__(self, web: Web, server: str, bearer: str = "") -> None:
        self._web = web
        self._server = server
        self._headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}

    async def configuration(self) -> Configuration:
        """Its public document. :raises Failed: it has none."""
        answer = await self._web.get(self._server + CONFIGURATION)
        if answer.status >= 500:
            raise Unreachable(f"the gateway {self._server} answered {answer.status}")
        if not answer.ok or answer.document.get("apiVersion") != API_VERSION:
            raise Failed(
                f"{self._server} does not say how to sign in (it answered {answer.status}): is it a Kulvert gateway? "
                "--issuer-url and --client-id say it in its place"
            )
        return _configuration(answer.document)

    async def clusters(self) -> tuple[str, ...]:
        """The names of the clusters that one may reach, sorted."""
        found = await self._asked(self._web.get(f"{self._server}{API}/clusters", self._headers), "the clusters")
        items = found.document.get("items")
        names = [_name(item) for item in items[:MOST_CLUSTERS]] if isinstance(items, list) else [""]
        if not all(names):
            raise Failed(f"the gateway {self._server} gave a list of clusters that makes no sense: nothing was written")
        return tuple(sorted(set(names)))

    async def certificate(self, request: bytes, seconds: float) -> bytes:
        """A chain, PEM, for a PKCS#10 request."""
        spec = {"request": base64.b64encode(request).decode(), "expirationSeconds": int(seconds)}
        status, _ = await self._created("certificaterequests", "CertificateRequest", spec)
        try:
            return base64.b64decode(status.get("certificate") or "", validate=True)
        except (ValueError, TypeError):
            raise Failed("the gateway's answer holds no certificate: its administrator must look") from None

    async def token(self, seconds: float, now: float) -> tuple[str, float]:
        """One of Kulvert's own tokens, and for how many seconds it is good: by the gateway's clock, if it tells it."""
        status, date = await self._created("tokenrequests", "TokenRequest", {"expirationSeconds": int(seconds)})
        token, until = status.get("token"), status.get("expirationTimestamp")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not isinstance(until, str):
            raise Failed("the gateway's answer holds no token: its administrator must look")
        try:
            return token, datetime.fromisoformat(until).timestamp() - (now if date is None else date)
        except ValueError:
            raise Failed("the gateway's token has no time of expiry: its administrator must look") from None

    async def _created(self, resource: str, kind: str, spec: Document) -> tuple[Document, float | None]:
        body = {"apiVersion": API_VERSION, "kind": kind, "spec": spec}
        url = f"{self._server}{API}/{resource}"
        answer = await self._asked(self._web.post_json(url, body, self._headers), f"a {kind}")
        found = answer.document.get("status")
        return found if isinstance(found, dict) else {}, answer.date

    async def _asked(self, asking: Awaitable[Answer], what: str) -> Answer:
        answer = await asking
        if answer.ok and answer.document:
            return answer
        raise _refused(self._server, answer, what)


def _refused(server: str, answer: Answer, what: str) -> Exception:
    said = plain(answer.document.get("message"), 400) or f"it answered {answer.status}"
    if answer.status >= 500 or answer.status == 429:
        return Unreachable(f"the gateway {server} did not give {what}: {said}")
    if answer.status == 401:
        return Failed(f"the gateway {server} does not know you: `kulvert login --server {server}` ({said})")
    if answer.status == 404:
        return Failed(f"the gateway {server} does not give {what}: its administrator may have that switched off")
    return Failed(f"the gateway {server} did not give {what}: {said}")


def _configuration(document: Document) -> Configuration:
    issuer, client_id, host = (document.get(name) or "" for name in ("issuer", "clientId", "redirectHost"))
    scopes = document.get("scopes") or []
    texts = [issuer, client_id, host, *(scopes if isinstance(scopes, list) else [None])]
    if not all(isinstance(one, str) and one == plain(one, 2_048) for one in texts):
        raise Failed("the gateway's public document makes no sense: its administrator must look at its login settings")
    return Configuration(issuer, client_id, tuple(scopes), host if host == "127.0.0.1" else "localhost")


def _name(item: object) -> str:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) and name == plain(name, 253) and "/" not in name else ""
