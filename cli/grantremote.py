"""The grants of a gateway, over its management API: for owners, users, and administrators who are elsewhere."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cli.failures import Failed
from cli.login.address import gateway, origin, plain
from cli.login.web import Answer, Unreachable, Web

if TYPE_CHECKING:
    import ssl

    from cli.grantbook import Object

API = "/apis/kulvert.dev/v1alpha1"


class Asking(Web):
    """Any method, with or without a document."""

    async def ask(self, method: str, url: str, headers: dict[str, str], body: Object | None) -> Answer:
        """:raises Unreachable: no proper answer came."""
        return await self._ask(method, url, headers=headers, **({} if body is None else {"json": body}))


@dataclass(frozen=True, slots=True)
class RemoteGrants:
    """See `cli.grantbook.GrantBook`. Whom the gateway takes one for, `tls` and `bearer` say."""

    server: str
    tls: ssl.SSLContext = field(repr=False)
    bearer: str = field(default="", repr=False)

    def list(self) -> list[Object]:
        """See `GrantBook`."""
        items = self._asked("GET", "/grants").get("items")
        if not isinstance(items, list) or not all(map(_is_grant, items)):
            raise Failed(f"the gateway {self.server} gave a list of grants that makes no sense")
        return items

    def create(self, document: Object) -> Object:
        """See `GrantBook`."""
        return self._asked("POST", "/grants", document)

    def replace(self, document: Object) -> Object:
        """See `GrantBook`."""
        return self._asked("PUT", _path(document["metadata"]["name"]), document)

    def delete(self, name: str, version: str) -> None:
        """See `GrantBook`."""
        self._asked("DELETE", f"{_path(name)}?resourceVersion={quote(version, safe='')}")

    def review(self, spec: Object) -> Object:
        """See `GrantBook`."""
        found = self._asked("POST", "/accessreviews", {"spec": spec}).get("status")
        if not isinstance(found, dict) or not isinstance(found.get("allowed"), bool):
            raise Failed(f"the gateway {self.server} gave an answer that makes no sense")
        return {"reason": "", "considered": [], "others": 0} | found

    def _asked(self, method: str, path: str, body: Object | None = None) -> Object:
        return asyncio.run(self._answer(method, path, body))

    async def _answer(self, method: str, path: str, body: Object | None) -> Object:
        headers = {"Authorization": f"Bearer {self.bearer}"} if self.bearer else {}
        try:
            async with Asking(self.tls, _said) as web:
                answer = await web.ask(method, f"{self.server}{API}{path}", headers, body)
        except Unreachable as error:
            raise Failed(str(error)) from None
        if answer.ok and answer.document:
            return answer.document
        said = plain(answer.document.get("message"), 600) or f"the gateway {self.server} answered {answer.status}"
        raise Failed(f"{said}: `kulvert login --server {self.server}`" if answer.status == 401 else said)


def by_login(server: str, profile: str, ca: str) -> RemoteGrants:
    """As whom one has signed in. :raises Failed: nobody; the text says how."""
    from cli.credentialsource import Source, ways_here
    from cli.login.web import trust
    from cli.tokencache import TokenCache, directory

    address = gateway(server)
    cache = TokenCache(directory(os.environ), _said)
    found = [key for key in cache.logins() if (key.server, key.profile) == (address, profile)]
    if not found:
        raise Failed(f"you are not signed in at {address}: `kulvert login --server {address}`, or --kubeconfig FILE")
    source = Source(cache, found[0], _said, sys.stdin.isatty(), ways_here(), ca)
    login = asyncio.run(source.login())
    return RemoteGrants(address, trust(ca or login.ca), login.id_token)


def by_kubeconfig(path: Path, server: str) -> RemoteGrants:
    """By the client certificate or token of a kubeconfig's current context. :raises Failed: it has none."""
    import base64

    from cli.gatewayapi import show_certificate
    from cli.kubeconfigtree import Kubeconfig
    from cli.login.web import trust

    config = Kubeconfig.read(path)
    context = config.entry("contexts", config.current) or {}
    cluster = config.entry("clusters", str(context.get("cluster", ""))) or {}
    user = config.entry("users", str(context.get("user", ""))) or {}
    address = gateway(server or origin(str(cluster.get("server", ""))))
    if address != origin(str(cluster.get("server", ""))):
        raise Failed(f"the current context of {path} is not of {address}: its credentials are not sent there")

    def content(entry: dict[str, Any], key: str) -> str:
        try:
            if f"{key}-data" in entry:
                return base64.b64decode(str(entry[f"{key}-data"]), validate=True).decode("ascii")
            return (path.parent / str(entry[key])).read_text("ascii") if key in entry else ""
        except ValueError:
            raise Failed(f"{path}: {key} makes no sense") from None

    tls = trust(content(cluster, "certificate-authority"))
    token = str(user.get("token", ""))
    certificate, key = content(user, "client-certificate"), content(user, "client-key")
    if certificate and key:
        show_certificate(tls, certificate, key)
    elif not token:
        raise Failed(f"the current context of {path} has no client certificate and no token: use --server")
    return RemoteGrants(address, tls, token)


def _path(name: str) -> str:
    return f"/grants/{quote(name, safe='')}"


def _is_grant(item: object) -> bool:
    """Whether the commands can show it; what its fields say, they do not take for granted."""
    if not isinstance(item, dict):
        return False
    metadata, spec, status = (item.get(key) for key in ("metadata", "spec", "status"))
    if not isinstance(metadata, dict) or not isinstance(spec, dict) or not isinstance(status, dict):
        return False
    return isinstance(metadata.get("name"), str) and isinstance(status.get("source"), str)


def _said(text: str) -> None:
    import click

    click.echo(f"kulvert: {text}", err=True)
