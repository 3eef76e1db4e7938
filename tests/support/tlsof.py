"""A user's TLS, as an HTTP client of this process needs it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

from tests.support.platform import Platform


def tls_of(platform: Platform, user: str = "admin", groups: Iterable[str] = ("kulvert:admins",)) -> ssl.SSLContext:
    """By a client certificate of the platform's, as it issues them now."""
    issued = platform.certificate(user, groups)
    return tls_by(platform.directory / f"{user}.pem", issued.certificate + issued.key, platform.ca)


def tls_by(pair: Path, pem: bytes, trusted: bytes) -> ssl.SSLContext:
    """By a certificate and its key, which go into the file `pair`."""
    pair.touch(mode=0o600)
    pair.write_bytes(pem)
    tls = ssl.create_default_context(cadata=trusted.decode())
    tls.load_cert_chain(pair)
    return tls
