"""The server's own certificate: where it comes from, what clients must trust for it, and its renewal while we run.

Contexts are made once, since the listeners hold them; a new certificate is loaded into them, and counts for the
handshakes from then on.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from auth.statefile import write_private
from auth.watched import Watched
from gateway.config import TlsConfig
from gateway.listener import TlsFiles, server_context
from gateway.state import State

_Mark: TypeAlias = tuple[tuple[int, int, int], ...]
_AT_MOST_EVERY = 3600.0
"""Seconds. Where the platform's CA is about to expire, so is all that it signs."""


class Certificates:
    """The configured files, loaded again when they change, or a certificate by the platform's CA, renewed at two
    thirds of its life.
    """

    def __init__(self, tls: TlsConfig, names: tuple[str, ...], state: State, now: float) -> None:
        """:raises OSError: a file cannot be used (ssl.SSLError is one)."""
        self._state = state
        self._names = names
        self._renew_at = float("inf")
        client_ca = state.directory / "ca.crt"
        write_private(client_ca, state.authority(now).certificate_pem)
        if tls.certificate is not None and tls.key is not None:
            self._files = TlsFiles(tls.certificate, tls.key, client_ca)
        else:
            self._files = TlsFiles(state.server_certificate_file, state.server_certificate_file, client_ca)
            self._issue(now)
        known = self._mark()
        self.users = server_context(self._files)
        self.agents = server_context(TlsFiles(self._files.certificate, self._files.key))
        self._tell_trust()
        self._watched: Watched[_Mark, None] = Watched(self._mark, self._try, self._load, known=known)

    def poll(self, now: float) -> bool:
        """Renews and loads what is due. True where a new certificate is shown from now on.

        :raises OSError: the files do not fit together (yet); the old certificate stays.
        """
        if now >= self._renew_at:
            self._issue(now)
        return self._watched.poll()

    def _issue(self, now: float) -> None:
        self._state.issue_server_certificate(self._names, now)
        issued = x509.load_pem_x509_certificate(self._files.certificate.read_bytes())
        life = issued.not_valid_after_utc.timestamp() - now
        self._renew_at = now + max(life * 2 / 3, _AT_MOST_EVERY)

    def _mark(self) -> _Mark:
        seen = [path.stat() for path in (self._files.certificate, self._files.key)]
        return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in seen)

    def _try(self) -> None:
        """On a context of nobody's: one that is in use would be left with a certificate and another one's key."""
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._files.certificate, self._files.key)

    def _load(self, _: None) -> None:
        for context in (self.users, self.agents):
            context.load_cert_chain(self._files.certificate, self._files.key)
        self._tell_trust()

    def _tell_trust(self) -> None:
        own = self._files.certificate == self._state.server_certificate_file
        platform = self._files.client_ca
        trusted = platform.read_bytes() if own and platform is not None else root_of(self._files.certificate)
        write_private(self._state.server_ca, trusted)


def root_of(chain: Path) -> bytes:
    """The root at the end of a chain, as PEM; nothing where there is none: then its clients' systems know it."""
    last = x509.load_pem_x509_certificates(chain.read_bytes())[-1]
    try:
        last.verify_directly_issued_by(last)
    except (InvalidSignature, ValueError, TypeError):
        return b""
    return last.public_bytes(Encoding.PEM)
