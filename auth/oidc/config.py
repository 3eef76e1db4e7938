"""Which tokens of which OIDC issuers are users', and of what user: Kubernetes' `AuthenticationConfiguration` in values.

Source: kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration, KEP-3331.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

_WELL_KNOWN = "/.well-known/openid-configuration"

Required: TypeAlias = tuple[tuple[str, str], ...]
"""Claims that must be there, and the very text that they must have."""


@dataclass(frozen=True, slots=True)
class PrefixedClaim:
    """Names from a claim; the prefix keeps them apart from other issuers' names, and may be empty."""

    claim: str
    prefix: str


@dataclass(frozen=True, slots=True)
class ExtraClaim:
    """One key of the user's extra, and the claim that holds its values."""

    key: str
    claim: str


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where an issuer's keys are found, and by whom its server's certificate must be signed (PEM; None: by an
    authority that this machine trusts).
    """

    issuer: str
    discovery_url: str
    authorities: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class JwtIssuer:
    """One entry of the list `jwt`. `uid` is a claim's name, or empty. One of the audiences must be a token's own."""

    url: str
    audiences: tuple[str, ...]
    username: PrefixedClaim
    groups: PrefixedClaim | None = None
    uid: str = ""
    extra: tuple[ExtraClaim, ...] = ()
    required: Required = ()
    discovery_url: str = ""
    authorities: str | None = field(default=None, repr=False)

    @property
    def keys(self) -> KeySource:
        """Where to find its keys. Issuers that agree in this may go on with the same ones."""
        return KeySource(self.url, self.discovery_url or self.url.removesuffix("/") + _WELL_KNOWN, self.authorities)


@dataclass(frozen=True, slots=True)
class AuthenticationConfiguration:
    """All issuers; no two share a URL."""

    issuers: tuple[JwtIssuer, ...] = ()
