"""Users whom a trusted front proxy has authenticated, and names in headers: the hub's API server does so for what its
aggregation layer passes on.

The headers count from a peer whose client certificate a front proxies' authority has signed, with a common name that is
allowed. From everybody else they are not even read. What cannot be read in one way alone is refused: kube-apiserver
would take the first of two users, and a proxy before us may have meant the second.

A front proxy is nobody by itself. Its certificate is no user's, though the users' authorities may be the same ones.
Source: kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer, apiserver's
`authentication/request/headerrequest`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.x509.oid import NameOID

from auth.authenticator import AuthenticationFailed
from auth.identity import Credentials, Identity
from auth.x509 import UNREADABLE, check_authorities, credential_id_of, names, verified
from tunnel.headwrite import connection_tokens
from tunnel.impersonate import Pairs

SOURCE: Final = "front-proxy"
_NAME: Final = re.compile(r"x-(?:remote|forwarded)-[a-z0-9-]+")
_PREFIX: Final = re.compile(r"x-(?:remote|forwarded)-[a-z0-9-]*-")
_MALFORMED: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class HeaderNames:
    """Which headers name a user, in lower case; by default those that kube-apiserver sends.

    :raises ValueError: a name could reach an application behind a cluster's `proxy` subresource. Headers that begin
        with X-Remote- or X-Forwarded- are dropped on every way.
    """

    users: tuple[str, ...] = ("x-remote-user",)
    groups: tuple[str, ...] = ("x-remote-group",)
    uids: tuple[str, ...] = ("x-remote-uid",)
    extra_prefixes: tuple[str, ...] = ("x-remote-extra-",)

    def __post_init__(self) -> None:
        for name in (*self.users, *self.groups, *self.uids):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a user: take a header that begins with X-Remote-")
        for prefix in self.extra_prefixes:
            if not _PREFIX.fullmatch(prefix):
                raise ValueError(f"{prefix!r} cannot begin extras: take one as X-Remote-Extra-, with the last dash")
        if not self.users:
            raise ValueError("at least one header has to name the user, as X-Remote-User does")

    @classmethod
    def of(
        cls, users: Iterable[str], groups: Iterable[str], uids: Iterable[str], extra_prefixes: Iterable[str]
    ) -> HeaderNames:
        """Names as people write them."""
        return cls(*(tuple(name.lower() for name in names) for names in (users, groups, uids, extra_prefixes)))

    def collected(self, headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
        """The headers that name a user, out of a head's.

        :raises AuthenticationFailed: one is spelt with underscores, or named in Connection.
        """
        fields = list(headers)
        found = tuple(pair for pair in fields if self._means(pair[0].replace(b"_", b"-")))
        named = {token.replace(b"_", b"-") for token in connection_tokens(fields)}
        if any(b"_" in name for name, _ in found):
            raise AuthenticationFailed("the front proxy spells a header with underscores")
        if any(self._means(token) for token in named):
            raise AuthenticationFailed("the front proxy's request names a header in Connection that says who asks")
        return found

    def _means(self, name: bytes) -> bool:
        text = name.decode("latin-1")
        return text in self.users or text in self.groups or text in self.uids or text.startswith(self.extra_prefixes)


@dataclass(frozen=True, slots=True)
class FrontProxies:
    """Who may speak for others.

    :raises ValueError: no authority, or no name: any certificate of the authority could then be anybody.
    """

    authorities: tuple[x509.Certificate, ...] = field(repr=False)
    allowed: frozenset[str]
    headers: HeaderNames = HeaderNames()

    def __post_init__(self) -> None:
        check_authorities(self.authorities)
        if not self.allowed or "" in self.allowed:
            raise ValueError("name the common names that a front proxy's certificate may have")

    def recognise(self, certificate: x509.Certificate) -> bool:
        """Whether this is a front proxy's certificate, by its names. Nothing is verified here."""
        if not any(one.subject == certificate.issuer for one in self.authorities):
            return False
        values = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return any(value in self.allowed for value in values)

    def recognise_der(self, der: bytes) -> bool:
        """The same, of what TLS gives; no certificate is no front proxy's."""
        try:
            return self.recognise(x509.load_der_x509_certificate(der))
        except UNREADABLE:
            return False

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """See `Authenticator`: credentials with remote headers, if only with none of them, are a front proxy's."""
        if credentials.remote_headers is None or credentials.certificate is None:
            return None
        try:
            certificate = x509.load_der_x509_certificate(credentials.certificate)
            self._verify(certificate, now)
        except UNREADABLE:
            raise AuthenticationFailed("the front proxy's certificate is malformed") from None
        return self._identity(credentials.remote_headers, certificate)

    def _verify(self, certificate: x509.Certificate, now: float) -> None:
        verified(certificate, self.authorities, now)
        common = names(certificate.subject, NameOID.COMMON_NAME)
        if len(common) != 1 or common[0] not in self.allowed:
            raise AuthenticationFailed("the certificate's common name is not among the front proxies'")

    def _identity(self, headers: Pairs, certificate: x509.Certificate) -> Identity:
        user = _one(headers, self.headers.users, "user")
        if not user:
            raise AuthenticationFailed("the front proxy does not say who asks, and is nobody itself")
        extra: dict[str, tuple[str, ...]] = {}
        for key, value in self._extra(headers):
            extra[key] = (*extra.get(key, ()), value)
        groups = [value for value in _values(headers, self.headers.groups) if value]
        return Identity(
            user=user,
            groups=tuple(dict.fromkeys(groups)),
            uid=_one(headers, self.headers.uids, "uid"),
            extra=tuple(extra.items()),
            source=SOURCE,
            # With the user's name: an identity's hash has nothing else, and a proxy may speak for thousands.
            credential_id=f"{credential_id_of(certificate)}/{user}",
            expires=certificate.not_valid_after_utc.timestamp(),
        )

    def _extra(self, headers: Pairs) -> Iterable[tuple[str, str]]:
        for name, value in headers:
            text = name.decode("latin-1")
            for prefix in self.headers.extra_prefixes:
                if text.startswith(prefix) and len(text) > len(prefix):
                    yield _unescaped(text.removeprefix(prefix)), _text(value)
                    break


def _one(headers: Pairs, wanted: tuple[str, ...], what: str) -> str:
    values = _values(headers, wanted)
    if len(values) > 1:
        raise AuthenticationFailed(f"the front proxy sends more than one header for the {what}")
    return values[0] if values else ""


def _values(headers: Pairs, wanted: tuple[str, ...]) -> list[str]:
    return [_text(value) for name, value in headers if name.decode("latin-1") in wanted]


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise AuthenticationFailed("the front proxy sends a header that is not UTF-8") from None


def _unescaped(key: str) -> str:
    """As kube-apiserver: percent-decoded after lower-casing, and left as it is where that cannot be done."""
    return key if _MALFORMED.search(key) else _text(unquote_to_bytes(key))
