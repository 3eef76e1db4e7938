"""Where the audit webhook is, and as whom to go there: a kubeconfig, as kube-apiserver's --audit-webhook-config-file.

Read strictly: what would weaken TLS, or needs a program to be run for a credential, is refused with its line.
"""

from __future__ import annotations

import base64
import binascii
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from yarl import URL

from auth.yamlnodes import Value, YamlError, read_document
from gateway.audit.policy import read_text

_ROOT: Final = frozenset({"clusters", "users", "contexts", "current-context"})
_IDLE: Final = frozenset({"apiVersion", "kind", "preferences", "extensions"})
_CLUSTER: Final = frozenset(
    {"certificate-authority", "certificate-authority-data", "tls-server-name", "insecure-skip-tls-verify"}
)
_USER: Final = frozenset(
    {"token", "tokenFile", "username", "password"}
    | {"client-certificate", "client-certificate-data", "client-key", "client-key-data"}
)


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """An https URL, TLS that verifies its server, and at most one of token, token file and password."""

    url: str
    tls: ssl.SSLContext = field(repr=False)
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    basic: tuple[str, str] | None = field(default=None, repr=False)

    def authorization(self) -> str | None:
        """The header, with the token file as it is now. Raises OSError where that cannot be read."""
        token = self.token_file.read_text(encoding="utf-8").strip() if self.token_file else self.token
        if token:
            return f"Bearer {token}"
        if self.basic:
            return "Basic " + base64.b64encode(":".join(self.basic).encode()).decode()
        return None


def load_target(path: Path) -> WebhookTarget:
    """Reads the file and those that it names. :raises YamlError: with file, line and field, what cannot be used."""
    root = read_document(read_text(path), str(path)).fields(required=_ROOT, optional=_IDLE)
    context = _named(root["contexts"], root["current-context"], "context")
    chosen = context.fields(required=frozenset({"cluster"}), optional=frozenset({"user", "namespace", "extensions"}))
    server = _named(root["clusters"], chosen["cluster"], "cluster")
    cluster = server.fields(required=frozenset({"server"}), optional=_CLUSTER | {"extensions", "disable-compression"})
    user: dict[str, Value] = {}
    if "user" in chosen:
        user = _named(root["users"], chosen["user"], "user").fields(required=frozenset(), optional=_USER)
    return WebhookTarget(
        url=_url(cluster["server"]),
        tls=_tls(cluster, user, path.parent),
        server_name=cluster["tls-server-name"].text() if "tls-server-name" in cluster else None,
        token=user["token"].text() if "token" in user else None,
        token_file=path.parent / user["tokenFile"].text() if "tokenFile" in user else None,
        basic=(user["username"].text(), user["password"].text()) if "username" in user and "password" in user else None,
    )


def _named(entries: Value, name: Value, kind: str) -> Value:
    wanted = name.text()
    for item in entries.items():
        fields = item.fields(required=frozenset({"name", kind}))
        if fields["name"].text() == wanted:
            return fields[kind]
    raise name.error(f"there is no {kind} named {wanted!r}")


def _url(value: Value) -> str:
    try:
        url = URL(value.text())
    except ValueError:
        url = URL()
    if url.scheme != "https" or not url.host or url.user or url.fragment:
        raise value.error("must be an https:// URL: the log says who does what, and whoever can change it can hide")
    return str(url)


def _tls(cluster: dict[str, Value], user: dict[str, Value], directory: Path) -> ssl.SSLContext:
    skip = cluster.get("insecure-skip-tls-verify")
    if skip is not None and skip.flag():
        raise skip.error("is not served: name the certificate authority instead")
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authority := _pem(cluster, "certificate-authority", directory):
        context = ssl.create_default_context(cadata=_checked(cluster["server"], authority))
    certificate, key = _pem(user, "client-certificate", directory), _pem(user, "client-key", directory)
    if certificate and key:
        _load_pair(context, user, certificate + b"\n" + key)
    elif certificate or key:
        raise cluster["server"].error("client-certificate and client-key go together: set both, or neither")
    return context


def _pem(fields: dict[str, Value], name: str, directory: Path) -> bytes:
    if (data := fields.get(name + "-data")) is not None:
        try:
            return base64.b64decode(data.text(), validate=True)
        except (ValueError, binascii.Error):
            raise data.error("is not base64") from None
    if (file := fields.get(name)) is None:
        return b""
    try:
        return (directory / file.text()).read_bytes()
    except OSError as error:
        raise file.error(f"cannot be read: {error.strerror}") from None


def _checked(where: Value, authority: bytes) -> str:
    try:
        text = authority.decode("ascii")
        ssl.create_default_context(cadata=text)
    except (UnicodeDecodeError, ssl.SSLError):
        raise where.error("its certificate authority is no PEM certificate") from None
    return text


def _load_pair(context: ssl.SSLContext, user: dict[str, Value], pair: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # ssl reads certificates from files alone; mode 0600
        file.write(pair)
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except (ssl.SSLError, ValueError) as error:
            where = user.get("client-certificate-data") or user["client-certificate"]
            raise where.error(f"client certificate and key cannot be used: {error}") from None


__all__ = ["WebhookTarget", "YamlError", "load_target"]
