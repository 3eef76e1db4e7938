"""The server's own certificate: where it comes from, what clients must trust for it, and its renewal while we run; and
the contexts of the two doors, the users' with the authorities whose client certificates it takes.

The listeners hold one context each. Into the agents' one a new certificate is loaded; the users' one leads each
handshake to the newest of its kind, because authorities can be added to a context, but not removed.
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
from auth.x509 import is_authority
from gateway.clienttrust import ClientTrust
from gateway.config import TlsConfig
from gateway.listener import TlsFiles, replaceable, server_context
from gateway.state import State

_Mark: TypeAlias = tuple[tuple[tuple[int, int, int], ...], bytes]
SET_BACK = 60.0
"""Seconds that a clock may go back before what was issued by it is made anew: nobody else takes it as valid yet."""
_AT_MOST_EVERY = 3600.0
"""Seconds. Where the platform's CA is about to expire, so is all that it signs."""


class Certificates:
    """The configured files, loaded again when they change, or a certificate by the platform's CA, renewed at two
    thirds of its life.
    """

    def __init__(
        self, tls: TlsConfig, names: tuple[str, ...], state: State, now: float, trust: ClientTrust | None = None
    ) -> None:
        """`trust` says whose client certificates users may show; without it, the platform's. It is polled by others,
        and before this one.

        :raises OSError: a file cannot be used (ssl.SSLError is one).
        """
        self._state = state
        self._names = names
        self._renew_at, self._issued_at = float("inf"), float("-inf")
        self._trust = trust
        self._take_authorities(now)
        self._own = tls.certificate is None or tls.key is None
        if tls.certificate is not None and tls.key is not None:
            self._files = TlsFiles(tls.certificate, tls.key)
        else:
            self._files = TlsFiles(state.server_certificate_file, state.server_certificate_file)
            self._issue(now)
        self._announced_ca, self._announced = tls.announced_ca, b""
        known = self._mark()
        self._newest = self._made()
        self.users = replaceable(self._made(), lambda: self._newest)
        self.agents = server_context(self._files, state.agents_authority(now).trusted_pem)
        self._tell_trust()
        self._watched: Watched[_Mark, ssl.SSLContext] = Watched(self._mark, self._made, self._load, known=known)

    @property
    def trust(self) -> str:
        """PEM of what agents shall trust: the authority of the server's certificate, and of its next one."""
        return self._told

    def poll(self, now: float) -> bool:
        """Renews and loads what is due. True where handshakes go another way from now on.

        :raises OSError: the files do not fit together (yet); the old certificate stays.
        """
        if self._authorities != self._marks():
            self._take_authorities(now)
            self._renew_at = min(self._renew_at, now) if self._own else self._renew_at
            self.agents.load_verify_locations(cadata=self._state.agents_authority(now).trusted_pem.decode("ascii"))
        if now >= self._renew_at or now < self._issued_at - SET_BACK:
            self._issue(now)
        return self._watched.poll()

    def _marks(self) -> tuple[object, object]:
        """What differs when an authority has come or gone. One that is gone is still taken in the agents' handshake,
        and refused in their hello.
        """
        return self._state.users.mark(), self._state.agents.mark()

    def _take_authorities(self, now: float) -> None:
        self._state.authority(now)  # made, if need be, before their marks are looked at
        self._state.agents_authority(now)
        self._authorities = self._marks()
        self._platform = self._state.authority(now).trusted_pem
        write_private(self._state.directory / "ca.crt", self._platform)

    def _issue(self, now: float) -> None:
        self._state.issue_server_certificate(self._names, now)
        issued = x509.load_pem_x509_certificate(self._files.certificate.read_bytes())
        life = issued.not_valid_after_utc.timestamp() - now
        self._renew_at, self._issued_at = now + max(life * 2 / 3, _AT_MOST_EVERY), now

    def _mark(self) -> _Mark:
        files = (self._files.certificate, self._files.key, self._announced_ca)
        seen = [path.stat() for path in files if path is not None]
        return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in seen), self._client_cas()

    def _client_cas(self) -> bytes:
        return self._platform if self._trust is None else self._trust.pem

    def _made(self) -> ssl.SSLContext:
        """A users' context of what there is now. That it can be made shows that the files fit together: a context in
        use would be left with a certificate and another one's key.
        """
        return server_context(self._files, self._client_cas())

    def _load(self, newest: ssl.SSLContext) -> None:
        self._newest = newest
        self.agents.load_cert_chain(self._files.certificate, self._files.key)
        self._tell_trust()

    def _tell_trust(self) -> None:
        self._trusted = self._platform if self._own else root_of(self._files.certificate)
        self._announced = _authorities(self._announced_ca)
        self._told = (self._trusted + self._announced).decode("ascii")
        write_private(self._state.server_ca, self._trusted)


def _authorities(path: Path | None) -> bytes:
    """Its CA certificates. Raises OSError where it holds anything else: an agent would drop its welcome for it."""
    if path is None:
        return b""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        raise OSError(f"tls.announcedCa, {path}: not a bundle of certificates in PEM") from None
    if not all(is_authority(one) for one in found):
        raise OSError(f"tls.announcedCa, {path}: holds a certificate that is no authority's")
    return b"".join(one.public_bytes(Encoding.PEM) for one in found)


def root_of(chain: Path) -> bytes:
    """The root at the end of a chain, as PEM; nothing where there is none: then its clients' systems know it."""
    last = x509.load_pem_x509_certificates(chain.read_bytes())[-1]
    try:
        last.verify_directly_issued_by(last)
    except (InvalidSignature, ValueError, TypeError):
        return b""
    return last.public_bytes(Encoding.PEM)
