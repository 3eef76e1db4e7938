"""A login, and what the gateway gave for one, as the cache keeps them. Plain values, for kubectl's every call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from cli.credentialplan import Times
from cli.tokencache import CERTIFICATE, LoginKey

Document = dict[str, Any]
CERTIFICATE_SHARE = 2 / 3


@dataclass(frozen=True, slots=True)
class Client:
    """As what the command is known at the issuer. A desktop program's `secret` is none, but some issuers want it."""

    id: str
    scopes: tuple[str, ...]
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody's login at an issuer. `ca` is PEM that its gateway and issuer are trusted by, beside the system's."""

    key: LoginKey
    client: Client
    times: Times
    subject: str
    name: str
    id_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)

    def document(self) -> Document:
        """For the file."""
        return _times(self.times) | {
            "clientSecret": self.client.secret,
            "scopes": list(self.client.scopes),
            "subject": self.subject,
            "name": self.name,
            "idToken": self.id_token,
            "refreshToken": self.refresh_token,
            "ca": self.ca,
        }

    @classmethod
    def read(cls, key: LoginKey, document: Document | None) -> Login | None:
        """From the file; None where something is missing."""
        if document is None or (times := _read_times(document, 0.0)) is None:
            return None
        names = ("clientSecret", "subject", "name", "idToken", "refreshToken", "ca")
        scopes = document.get("scopes")
        if not _texts([document.get(name) for name in names]) or not isinstance(scopes, list) or not _texts(scopes):
            return None
        secret, subject, name, id_token, refresh_token, ca = (document[name] for name in names)
        client = Client(key.client_id, tuple(scopes), secret)
        return cls(key, client, times, subject, name, id_token, refresh_token, ca)

    def at(self, times: Times) -> Login:
        """The same, with other times."""
        return replace(self, times=times)


@dataclass(frozen=True, slots=True)
class Minted:
    """What the gateway gave for a login: a certificate with its key, or a token."""

    kind: str
    times: Times
    secret: str = field(repr=False)
    """The token, or the private key as PEM."""
    certificate: str = field(default="", repr=False)

    def document(self) -> Document:
        """For the file."""
        return _times(self.times) | {"secret": self.secret, "certificate": self.certificate}

    @classmethod
    def read(cls, kind: str, document: Document | None) -> Minted | None:
        """From the file; None where something is missing."""
        share = CERTIFICATE_SHARE if kind == CERTIFICATE else 0.0
        if document is None or (times := _read_times(document, share)) is None:
            return None
        secret, certificate = document.get("secret"), document.get("certificate")
        if not isinstance(secret, str) or not isinstance(certificate, str):
            return None
        return cls(kind, times, secret, certificate)

    def at(self, times: Times) -> Minted:
        """The same, with other times."""
        return replace(self, times=times)


def _times(times: Times) -> Document:
    return {
        "obtained": times.obtained,
        "expires": times.expires,
        "retryAt": times.retry_at,
        "failures": times.failures,
    }


def _read_times(document: Document, share: float) -> Times | None:
    values = [document.get(name) for name in ("obtained", "expires", "retryAt", "failures")]
    if not all(isinstance(value, int | float) and abs(value) < 1e12 for value in values):
        return None
    obtained, expires, retry_at, failures = (float(value or 0) for value in values)
    return Times(obtained, expires, share, retry_at, int(failures))


def _texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
