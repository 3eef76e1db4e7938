"""An OIDC issuer without a network: it signs what a test wants, and publishes what a test wants."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from auth.oidc.config import AuthenticationConfiguration, JwtIssuer, KeySource, PrefixedClaim
from auth.oidc.jwks import parse_key_set
from auth.oidc.jwksfetch import Fetched, FetchFailed

URL = "https://issuer.test"
AUDIENCE = "kulvert"
NOW = 1_800_000_000.0
CLAIMS: dict[str, Any] = {
    "iss": URL,
    "aud": AUDIENCE,
    "exp": int(NOW) + 600,
    "iat": int(NOW),
    "sub": "jane",
    "groups": ["dev", "ops"],
    "jti": "t1",
}
ISSUER = JwtIssuer(
    URL, (AUDIENCE,), PrefixedClaim("sub", "oidc:"), PrefixedClaim("groups", "oidc:"), uid="", required=()
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(_number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One for each number: RSA keys take long to make."""
    return rsa.generate_private_key(65537, bits)


def jwk(key: PrivateKey, **members: Any) -> dict[str, Any]:
    """The public half as a key set has it."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        found = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        found = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        found = jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True)
    found.pop("key_ops", None)
    return found | members


def key_set(*members: dict[str, Any]) -> bytes:
    """The document."""
    return json.dumps({"keys": members}).encode()


def configured(*issuers: JwtIssuer) -> AuthenticationConfiguration:
    """Nothing but these."""
    return AuthenticationConfiguration(issuers)


@dataclass
class Clock:
    """A time that a test moves."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeIssuer:
    """Signs with its first key, and publishes all of them. It is its own fetcher, and the maker of it."""

    keys: list[tuple[str, PrivateKey]] = field(default_factory=lambda: [("k0", rsa_key(0))])
    algorithm: str = "RS256"
    max_age: float | None = None
    down: bool = False
    fetches: int = 0

    def __call__(self, source: KeySource) -> FakeIssuer:
        return self

    async def fetch(self) -> Fetched:
        """See `Fetcher`."""
        self.fetches += 1
        if self.down:
            raise FetchFailed("it is down")
        return Fetched(parse_key_set(key_set(*self.published())), self.max_age)

    def published(self) -> Sequence[dict[str, Any]]:
        """The key set's members."""
        return [jwk(key, kid=kid, use="sig") for kid, key in self.keys]

    def sign(self, claims: dict[str, Any] | None = None, headers: dict[str, Any] | None = None, **more: Any) -> str:
        """A token with the usual claims, changed as wanted; None takes a claim out."""
        told = {**(CLAIMS if claims is None else claims), **more}
        told = {name: value for name, value in told.items() if value is not None}
        kid, key = self.keys[0]
        return jwt.encode(told, key, self.algorithm, headers={"kid": kid, **(headers or {})})
