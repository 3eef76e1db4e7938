"""Settings of the credentials that Kulvert issues, and of those that it takes from a front proxy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class CertificatesConfig:
    """Users' certificates that the platform's CA signs. Seconds."""

    lifetime: float = DAY
    renewable_for: float = 7 * DAY
    """A user who shows a certificate or token of Kulvert's gets new ones so long after the login that the first of
    them came of.
    """


@dataclass(frozen=True, slots=True)
class TokensConfig:
    """Kulvert's own tokens, and the keys that sign them. Seconds."""

    lifetime: float = 3600.0
    """The longest that a user may ask for; a day at most."""
    issuer: str = ""
    """The gateway's address (https://…), for others who verify its tokens; empty: what the keys' file says. A change
    ends all tokens.
    """
    rotate_every: float = 30 * DAY
    publish_lead: float = 3600.0
    """A new key is published so long before it signs."""


@dataclass(frozen=True, slots=True)
class FrontProxyConfig:
    """Whose X-Remote-* headers count (kube-apiserver's --requestheader-… flags). Without `client_ca`, nobody's."""

    client_ca: Path | None = None
    allowed_names: tuple[str, ...] = ()
    username_headers: tuple[str, ...] = ("X-Remote-User",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    extra_headers_prefix: tuple[str, ...] = ("X-Remote-Extra-",)
