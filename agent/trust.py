"""Whom the agent trusts to be its server: the configured authorities, and those that the server has announced.

A server that changes its CA announces the new one before it uses it, over a connection that the present trust has
verified. Each announcement replaces the one before; what the configuration names stays.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from agent.access import verifying_context
from agent.privatefile import read_private, write_private
from agent.settings import ConfigError
from tunnel.errors import TunnelError
from tunnel.handshake import MAX_TRUST

log = structlog.get_logger("kulvert.agent")

TRUST: Final = "trust.pem"
MOST: Final = 16
"""Authorities of an announcement."""


class TrustError(TunnelError):
    """A bundle is none that anybody should trust; the text says why."""


class Trust:
    """`configured` is the PEM of caFile, or None for the system's authorities. What was announced is kept in
    `directory`, together with a digest of `configured`: with another caFile, nothing of before is trusted any more.
    """

    def __init__(self, configured: str | None, directory: Path | None) -> None:
        self._configured = configured
        self._path = directory / TRUST if directory is not None else None
        self._mark = f"# announced beside {hashlib.sha256((configured or 'system').encode()).hexdigest()}\n"
        self.announced = self._load()

    def announce(self, bundle: str) -> bool:
        """Take what an authenticated server says; tells whether that changes anything. An empty bundle says nothing.
        Raises TrustError, and has then changed nothing; OSError where it cannot be kept: it counts until a restart.
        """
        if not bundle:
            return False
        bundle = authorities(bundle)
        if bundle == self.announced:
            return False
        self.announced = bundle
        if self._path is not None:
            write_private(self._path, (self._mark + bundle).encode())
        return True

    def context(self, identity: bytes | None) -> ssl.SSLContext:
        """A verifying context, which offers the certificate of `identity` (PEM, with its key) to servers that ask."""
        if self._configured is None:
            context = verifying_context(None)
            if self.announced:
                context.load_verify_locations(cadata=self.announced)
        else:
            context = verifying_context(self._configured + "\n" + self.announced)
        if identity is not None:
            _load_chain(context, identity)
        return context

    def _load(self) -> str:
        """What cannot be trusted is left out, and the agent starts: the configured authorities are still there."""
        try:
            kept = read_private(self._path) if self._path is not None else None
            mark, _, bundle = (kept or b"").decode("ascii").partition("\n")
            if kept is None:
                return ""
            if mark + "\n" != self._mark:
                log.warning("another caFile: authorities that were announced before are not trusted any more")
                return ""
            return authorities(bundle)
        except (ConfigError, TrustError, UnicodeDecodeError) as error:
            log.error("announced authorities are not trusted", file=str(self._path), error=str(error))
            return ""


def authorities(bundle: str) -> str:
    """The bundle in one form: each authority once, sorted. Raises TrustError for what is not one to `MOST` of them."""
    if len(bundle) > MAX_TRUST:
        raise TrustError("the announced authorities are too large")
    try:
        certificates = x509.load_pem_x509_certificates(bundle.encode("ascii"))
        good = [_is_authority(one) for one in certificates]
    except Exception as error:  # the library raises of many kinds
        raise TrustError("the announced authorities are malformed") from error
    if not all(good):
        raise TrustError("a certificate among the announced authorities is none of an authority")
    if not 0 < len(certificates) <= MOST:
        raise TrustError(f"more than {MOST} authorities are announced")
    return "".join(sorted({one.public_bytes(Encoding.PEM).decode() for one in certificates}))


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """`ssl` reads files only: this one has no name, and nobody else can open it."""
    with os.fdopen(os.memfd_create("kulvert-agent"), "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
