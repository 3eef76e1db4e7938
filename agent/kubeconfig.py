"""An API server by a kubeconfig, for an agent outside its cluster.

Only what can be used without running anything and without giving up verification: a token, a token's file,
or a client certificate. Everything else is refused by name, rather than left out in silence.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from agent.access import Access, ApiServer, FixedAccess, verifying_context
from agent.credentials import NoAccess, TokenFile, bearer

_REFUSED_USER = {
    "exec": "runs a program; put a token into a file and name it by tokenFile",
    "auth-provider": "was removed from Kubernetes; use a token or a client certificate",
    "username": "is basic authentication, which the API server does not take any more",
    "password": "is basic authentication, which the API server does not take any more",
    "as": "is impersonation, which is what the agent does for others",
    "as-groups": "is impersonation, which is what the agent does for others",
    "as-uid": "is impersonation, which is what the agent does for others",
    "as-user-extra": "is impersonation, which is what the agent does for others",
}
_REFUSED_CLUSTER = {
    "proxy-url": "is not supported: the agent has to reach its API server directly",
}


class FileTokenAccess:
    """An `Access` whose token is in a file that rotates."""

    def __init__(self, server: ApiServer, tls: ssl.SSLContext, token: TokenFile) -> None:
        self.server = server
        self._tls = tls
        self._token = token

    def __repr__(self) -> str:
        return f"FileTokenAccess({self.server!r}, {self._token!r})"

    def context(self) -> ssl.SSLContext:
        """As it was made."""
        return self._tls

    def authorization(self, now: float) -> bytes | None:
        """The token of now."""
        return self._token.authorization(now)


def load(path: Path, context: str | None = None) -> Access:
    """The access that a kubeconfig's current context, or the named one, describes.

    :raises NoAccess: for a file that cannot be read, and for everything that this agent does not take.
    """
    config = _read(path)
    name = context or config.get("current-context")
    if not isinstance(name, str) or not name:
        raise NoAccess(f"{path}: no current-context; name one by kubeconfigContext")
    chosen = _named(config, "contexts", "context", name, path)
    cluster = _named(config, "clusters", "cluster", chosen.get("cluster"), path)
    user = _named(config, "users", "user", chosen.get("user"), path)
    _refuse(cluster, _REFUSED_CLUSTER, path)
    _refuse(user, _REFUSED_USER, path)
    if cluster.get("insecure-skip-tls-verify"):
        raise NoAccess(f"{path}: insecure-skip-tls-verify is refused: the agent verifies its API server, always")
    server = _server(cluster, path)
    return _access(server, _context(cluster, path), user, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise NoAccess(f"cannot read the kubeconfig, {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError):
        raise NoAccess(f"{path} is not YAML") from None  # a parser's error quotes the line, which may be a secret
    if not isinstance(config, dict):
        raise NoAccess(f"{path} is not a kubeconfig")
    return config


def _named(config: dict[str, Any], plural: str, singular: str, name: object, path: Path) -> dict[str, Any]:
    for item in config.get(plural) or []:
        if isinstance(item, dict) and item.get("name") == name and isinstance(item.get(singular), dict):
            found: dict[str, Any] = item[singular]
            return found
    raise NoAccess(f"{path}: there is no {singular} {name!r}")


def _refuse(section: dict[str, Any], reasons: dict[str, str], path: Path) -> None:
    for key, reason in reasons.items():
        if section.get(key):
            raise NoAccess(f"{path}: {key} {reason}")


def _server(cluster: dict[str, Any], path: Path) -> ApiServer:
    url = urlsplit(str(cluster.get("server") or ""))
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if url.scheme != "https" or not host or url.query or url.fragment or url.username:
        raise NoAccess(f"{path}: server is not https://HOST[:PORT][/PATH]")
    prefix = url.path.rstrip("/")
    if not prefix.isascii() or not prefix.isprintable() or " " in prefix:
        raise NoAccess(f"{path}: server has a malformed path")
    return ApiServer(host, port or 443, str(cluster.get("tls-server-name") or host), prefix.encode())


def _context(cluster: dict[str, Any], path: Path) -> ssl.SSLContext:
    ca = _content(cluster, "certificate-authority", path)
    try:
        return verifying_context(None if ca is None else ca.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise NoAccess(f"{path}: certificate-authority is not a PEM certificate") from None


def _content(section: dict[str, Any], key: str, path: Path) -> bytes | None:
    """The bytes of `key-data`, or of the file that `key` names (relative to the kubeconfig); data comes
    first, as in client-go.
    """
    if data := section.get(f"{key}-data"):
        try:
            return base64.b64decode(str(data), validate=True)
        except binascii.Error:
            raise NoAccess(f"{path}: {key}-data is not base64") from None
    if not (name := section.get(key)):
        return None
    file = path.parent / str(name)
    try:
        return file.read_bytes()
    except OSError as error:
        raise NoAccess(f"{path}: cannot read {key}, {file}: {error.strerror}") from error


def _access(server: ApiServer, tls: ssl.SSLContext, user: dict[str, Any], path: Path) -> Access:
    """A token beats a certificate, and a token's file a token, as in client-go; one that is not used is not
    loaded either.
    """
    if name := user.get("tokenFile"):
        return FileTokenAccess(server, tls, TokenFile(path.parent / str(name)))
    if token := user.get("token"):
        value = bearer(str(token).encode("utf-8", "surrogateescape"), f"{path}: token")
        return FixedAccess(server, tls, value.removeprefix(b"Bearer "))
    certificate, key = _content(user, "client-certificate", path), _content(user, "client-key", path)
    if certificate is None or key is None:
        raise NoAccess(f"{path}: the user has no token, tokenFile or client certificate with its key")
    _load_pair(tls, certificate, key, path)
    return FixedAccess(server, tls)


def _load_pair(tls: ssl.SSLContext, certificate: bytes, key: bytes, path: Path) -> None:
    """ssl takes files only: one that nobody else can read, for as long as it takes."""
    handle, name = tempfile.mkstemp(prefix="kulvert-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate + b"\n" + key)
        # An encrypted key would have OpenSSL ask on the terminal; an empty password makes it fail instead.
        tls.load_cert_chain(name, password=lambda: b"")
    except (ssl.SSLError, ValueError):
        raise NoAccess(f"{path}: the client certificate and its key do not fit, or the key is encrypted") from None
    finally:
        os.unlink(name)
