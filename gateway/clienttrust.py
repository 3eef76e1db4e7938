"""Whose client certificates count: the platform's own authority, the configured ones, their revocation lists, and the
front proxies. The files are watched, and a change counts for the next handshake and for every later look at a
certificate that was shown before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from auth.authorityfile import AuthorityFile
from auth.crl import CrlError, RevocationLists, read_crls
from auth.frontproxy import FrontProxies, HeaderNames
from auth.identity import Credentials, Identity
from auth.pki import CertificateAuthority
from auth.revocations import CurrentRevocations, no_revocations
from auth.statefile import StateFileError
from auth.watched import Seen, Watched
from auth.x509 import CertificateAuthenticator
from gateway.config import ConfigError
from gateway.issuing.settings import FrontProxyConfig

_Mark: TypeAlias = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """PEM; the revocation lists may be one in DER. What is None is not configured."""

    client_ca: Path | None = None
    client_crl: Path | None = None


@dataclass(frozen=True, slots=True)
class _Trust:
    """What follows from one content of the files."""

    platform: CertificateAuthority
    users: CertificateAuthenticator
    front: FrontProxies | None
    pem: bytes


TrustSeen: TypeAlias = Seen[_Mark, _Trust] | None


class ClientTrust:
    """Knows users by certificate (`auth.authenticator.Authenticator`); `front_proxy` knows them by headers."""

    def __init__(
        self,
        files: TrustFiles,
        platform: AuthorityFile,
        front: FrontProxyConfig | None = None,
        revoked: CurrentRevocations = no_revocations,
    ) -> None:
        """`platform` is there. :raises ConfigError: a file cannot be used."""
        self._files = files
        self._platform = platform
        self._front = front or FrontProxyConfig()
        self._revoked = revoked
        try:
            known = self._mark()
            self._current = self._read()
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from None
        self.front_proxy = _FrontProxyUsers(self)
        self._watched = Watched(self._mark, self._read, self._take, known=known)

    @property
    def platform(self) -> CertificateAuthority:
        """The platform's own authority, which signs what the server issues."""
        return self._current.platform

    @property
    def pem(self) -> bytes:
        """All authorities that a handshake has to know."""
        return self._current.pem

    def front(self) -> FrontProxies | None:
        """The front proxies that are trusted now, if there are any."""
        return self._current.front

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """See `auth.x509.CertificateAuthenticator`."""
        return self._current.users.authenticate(credentials, now, cluster)

    def problem(self, now: float) -> str | None:
        """Whose certificates are refused for want of a fresh revocation list."""
        return self._current.users.lists.problem(now)

    def look(self) -> TrustSeen:
        """The files where they have changed. Touches nothing of ours, so it may run in a thread.

        :raises ConfigError: they cannot be used; what was read before stays in force.
        """
        return self._watched.look()

    def take(self, seen: TrustSeen) -> bool:
        """Takes over what `look` has found. True where there was something: what is remembered of users may be wrong
        then, and handshakes need another context.
        """
        return self._watched.take(seen)

    def _take(self, trust: _Trust) -> None:
        self._current = trust

    def _mark(self) -> _Mark:
        named = (self._files.client_ca, self._files.client_crl, self._front.client_ca)
        seen = [path.stat() for path in named if path is not None]
        return (self._platform.mark(), *((one.st_mtime_ns, one.st_size, one.st_ino) for one in seen))

    def _read(self) -> _Trust:
        front, platform = self._read_front(), self._read_platform()
        authorities = (*platform.trusted, *_authorities(self._files.client_ca, "tls.clientCa"))
        users = CertificateAuthenticator(
            authorities,
            self._read_lists(authorities),
            self._revoked,
            proxied=front.recognise if front is not None else lambda _certificate: False,
            own=platform.trusted,
        )
        known = (*authorities, *(front.authorities if front is not None else ()))
        return _Trust(platform, users, front, b"".join(one.public_bytes(Encoding.PEM) for one in dict.fromkeys(known)))

    def _read_platform(self) -> CertificateAuthority:
        try:
            return self._platform.read()
        except StateFileError as error:
            raise ConfigError(str(error)) from None

    def _read_lists(self, authorities: Iterable[x509.Certificate]) -> RevocationLists:
        if self._files.client_crl is None:
            return RevocationLists()
        try:
            return RevocationLists.of(read_crls(self._files.client_crl.read_bytes()), authorities)
        except CrlError as error:
            raise ConfigError(f"tls.clientCrl, {self._files.client_crl}: {error}") from None

    def _read_front(self) -> FrontProxies | None:
        config = self._front
        if config.client_ca is None:
            return None
        authorities = _authorities(config.client_ca, "frontProxy.clientCa")
        names = config.username_headers, config.group_headers, config.uid_headers, config.extra_headers_prefix
        try:
            return FrontProxies(authorities, frozenset(config.allowed_names), HeaderNames.of(*names))
        except ValueError as error:
            raise ConfigError(f"frontProxy: {error}") from None


class _FrontProxyUsers:
    """An `auth.authenticator.Authenticator` of its own, so that the order of both can be configured."""

    def __init__(self, trust: ClientTrust) -> None:
        self._trust = trust

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """See `auth.frontproxy.FrontProxies`."""
        front = self._trust.front()
        return None if front is None else front.authenticate(credentials, now, cluster)


def _authorities(path: Path | None, setting: str) -> tuple[x509.Certificate, ...]:
    if path is None:
        return ()
    try:
        found = tuple(x509.load_pem_x509_certificates(path.read_bytes()))
        CertificateAuthenticator(found)
    except ValueError:
        raise ConfigError(f"{setting}, {path}: not a bundle of CA certificates in PEM") from None
    return found
