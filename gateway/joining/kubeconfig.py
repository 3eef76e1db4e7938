"""A kubeconfig that somebody else has written, and that the server uses once: nothing in it is run, read or believed.

It holds all it needs: an address, a CA, and a token or a client certificate. What names a file, runs a program, or
gives up verification is refused by name: it would be this server's file, program and trust.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from gateway.joining.install import JoinFailed

MOST: Final = 256 * 1024
_CLUSTER: Final = frozenset({"server", "certificate-authority-data", "tls-server-name", "extensions"})
_USER: Final = frozenset({"token", "client-certificate-data", "client-key-data", "extensions"})
_WHY: Final = {
    "insecure-skip-tls-verify": "the API server must be verified",
    "proxy-url": "the API server must be reached directly",
    "certificate-authority": "put the CA into certificate-authority-data",
    "exec": "it would run a program on this server: put a token there",
    "auth-provider": "it was removed from Kubernetes: put a token there",
    "tokenFile": "it would be a file of this server: put the token there",
    "client-certificate": "put the certificate into client-certificate-data",
    "client-key": "put the key into client-key-data",
}


@dataclass(frozen=True, slots=True)
class Target:
    """An API server, and what to show to it."""

    url: str
    tls: ssl.SSLContext = field(repr=False)
    name: str | None = None
    """The name in its certificate, if not the address's."""
    token: str | None = field(default=None, repr=False)


def read(data: bytes) -> Target:
    """The current context of a kubeconfig. :raises JoinFailed: it is none, or one that is not to be used."""
    config = _document(data)
    chosen = _named(config, "contexts", "context", config.get("current-context"))
    cluster = _named(config, "clusters", "cluster", chosen.get("cluster"))
    user = _named(config, "users", "user", chosen.get("user"))
    _only(cluster, _CLUSTER)
    _only(user, _USER)
    tls, token = _tls(cluster), user.get("token")
    if token:
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
            raise JoinFailed("the kubeconfig's token is malformed")
    else:
        _show(tls, _decoded(user, "client-certificate-data"), _decoded(user, "client-key-data"))
    name = cluster.get("tls-server-name")
    return Target(_url(cluster), tls, name if isinstance(name, str) and name else None, token or None)


def _document(data: bytes) -> dict[str, Any]:
    if len(data) > MOST:
        raise JoinFailed("the kubeconfig is too large")
    try:
        found = yaml.load(data, _Plain)  # noqa: S506 -- a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        raise JoinFailed("the kubeconfig is not YAML") from None  # a parser's error quotes what may be a secret
    if not isinstance(found, dict):
        raise JoinFailed("the kubeconfig is no mapping")
    return found


class _Plain(yaml.SafeLoader):
    """Without aliases: a few lines of them unfold to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError
        return super().compose_node(parent, index)


def _named(config: Mapping[str, Any], plural: str, singular: str, name: object) -> Mapping[str, Any]:
    items = config.get(plural)
    found = (
        [one for one in items if isinstance(one, dict) and one.get("name") == name] if isinstance(items, list) else []
    )
    if not isinstance(name, str) or len(found) != 1 or not isinstance(found[0].get(singular), dict):
        raise JoinFailed(f"the kubeconfig's current context does not lead to one {singular}")
    entry: Mapping[str, Any] = found[0][singular]
    return entry


def _only(section: Mapping[str, Any], known: frozenset[str]) -> None:
    """What is not known is refused, even if it is empty: nobody can say what it is to mean."""
    for key in section:
        if key not in known:
            why = _WHY.get(key, "it is not supported here")
            raise JoinFailed(f"the kubeconfig has {str(key)[:64]!a}: {why}")


def _url(cluster: Mapping[str, Any]) -> str:
    server = cluster.get("server")
    try:
        url = urlsplit(server if isinstance(server, str) else "")
        good = url.scheme == "https" and url.hostname and (url.port is None or url.port) and "@" not in url.netloc
    except ValueError:
        good = False
    if not good or url.query or url.fragment or not url.geturl().isascii() or not url.geturl().isprintable():
        raise JoinFailed("the kubeconfig's server is not https://HOST[:PORT][/PATH]")
    return url.geturl().rstrip("/")


def _tls(cluster: Mapping[str, Any]) -> ssl.SSLContext:
    """Verifying, always; without a CA of its own, by the system's."""
    try:
        ca = _decoded(cluster, "certificate-authority-data").decode("ascii") if _CA in cluster else None
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError):
        raise JoinFailed("the kubeconfig's certificate-authority-data is no PEM certificate") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # refuses the CAs of kubeadm, which have no key identifiers
    return context


_CA: Final = "certificate-authority-data"


def _show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """`ssl` reads files only: this one has no name, is on no disk, and nobody else can open it."""
    with os.fdopen(os.memfd_create("kulvert-join"), "wb") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        try:
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=lambda: b"")
        except (ssl.SSLError, ValueError):
            raise JoinFailed("the kubeconfig's client certificate and its key do not fit") from None


def _decoded(section: Mapping[str, Any], key: str) -> bytes:
    text = section.get(key)
    if not isinstance(text, str) or not text:
        raise JoinFailed(f"the kubeconfig has no {key}" + ("" if key == _CA else ", and no token"))
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise JoinFailed(f"the kubeconfig's {key} is not base64") from None
