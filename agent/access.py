"""Where the API server is, how its certificate is verified, and how the agent proves who it is.

With a client certificate every byte on a connection is privileged, not only a request that carries a token:
what keeps a client's bytes out is the relay, which writes nothing past a request's checked framing and
nothing before a checked 101.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ApiServer:
    """An address. `name` is what the certificate must say; `prefix` is a path before every target, without
    a last slash.
    """

    host: str
    port: int
    name: str
    prefix: bytes = b""

    @property
    def authority(self) -> bytes:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == 443 else f"{host}:{self.port}").encode("ascii")


class Access(Protocol):
    """What `agent.incluster` and `agent.kubeconfig` give."""

    @property
    def server(self) -> ApiServer:
        """Where to dial."""

    def context(self) -> ssl.SSLContext:
        """A verifying context; made anew when the CA's file has changed. Raises OSError or ValueError."""

    def authorization(self, now: float) -> bytes | None:
        """The Authorization header's value, or None with a client certificate. `now` is the loop's time."""


@dataclass(frozen=True, slots=True)
class FixedAccess:
    """An access whose parts do not change: a kubeconfig's, or a test's."""

    server: ApiServer
    tls: ssl.SSLContext = field(repr=False)
    token: bytes | None = field(default=None, repr=False)

    def context(self) -> ssl.SSLContext:
        """As it was made."""
        return self.tls

    def authorization(self, now: float) -> bytes | None:
        """As it was made."""
        return None if self.token is None else b"Bearer " + self.token


def verifying_context(ca_pem: str | None) -> ssl.SSLContext:
    """TLS ≥ 1.2 with the given CA alone, or with the system's where there is none; there is no way to
    switch it off.

    Python 3.13 adds VERIFY_X509_STRICT, which refuses the CAs that kubeadm and others made without key
    identifiers.
    :raises ssl.SSLError: for a CA that is none.
    """
    context = ssl.create_default_context(cadata=ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
