"""The public keys that an issuer publishes (RFC 7517), each bound to the algorithms that it may be used with.

The binding is what keeps `none` and HS256 with a public key for its secret out: a key decides on the algorithm, and the
token's header only has to agree. Keys that cannot be used here are passed over, as the RFC wants it (section 5): other
kinds, keys to encrypt with, short RSA keys, keys that somebody published with their private half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from auth.oidc.strictjson import BadJson, read_object

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

RSA_BITS: Final = (2048, 8192)
"""Less is weak, and more costs a gateway too much for each token."""
MOST_KEYS: Final = 64
"""Without a `kid`, a token may be checked against each of them."""

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[Mapping[str, str]] = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_READERS: Final[Mapping[str, str]] = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
"""An algorithm of each kind of key: the library reads keys by them."""
ALGORITHMS: Final = _RSA | frozenset(_CURVES.values()) | {"EdDSA"}


class BadKeySet(ValueError):
    """This is no key set; the text says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key. `kid` is None where the issuer gave it no name."""

    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey = field(repr=False)

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether it made this signature, by an algorithm that it may be used with."""
        if algorithm not in self.algorithms:
            return False
        return bool(jwt.get_algorithm_by_name(algorithm).verify(signed, self.public, signature))


@dataclass(frozen=True, slots=True)
class KeySet:
    """All usable keys of an issuer; a name may be that of several."""

    keys: tuple[Key, ...] = ()

    def named(self, kid: str | None) -> tuple[Key, ...]:
        """The keys that a token means: those of that name, or all of them where it names none."""
        return self.keys if kid is None else tuple(key for key in self.keys if key.kid == kid)


def parse_key_set(data: bytes) -> KeySet:
    """Reads a JWKS document; it may well hold no usable key, and then no token of the issuer is good.

    :raises BadKeySet: it is not one.
    """
    try:
        members = read_object(data).get("keys")
    except BadJson as bad:
        raise BadKeySet(f"the key set {bad}") from None
    if not isinstance(members, list) or not all(isinstance(one, dict) for one in members):
        raise BadKeySet("the key set has no list of keys")
    if len(members) > MOST_KEYS:
        raise BadKeySet(f"the key set has more than {MOST_KEYS} keys")
    return KeySet(tuple(_usable(members)))


def _usable(members: Iterable[Mapping[str, Any]]) -> Iterable[Key]:
    for member in members:
        if not _to_verify_with(member) or (public := _public(member)) is None:
            continue
        possible = _algorithms(public)
        if "alg" in member:
            possible &= {member["alg"]} if isinstance(member["alg"], str) else set()
        if possible:
            yield Key(member.get("kid"), possible, public)


def _to_verify_with(member: Mapping[str, Any]) -> bool:
    operations = member.get("key_ops", ["verify"])
    return (
        member.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and isinstance(member.get("kid"), str | None)
        and "d" not in member
    )


def _public(member: Mapping[str, Any]) -> PublicKey | None:
    reader = _READERS.get(kind) if isinstance(kind := member.get("kty"), str) else None
    try:
        found = jwt.get_algorithm_by_name(reader).from_jwk(dict(member)) if reader else None
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return None
    return found if isinstance(found, PublicKey) else None


def _algorithms(public: PublicKey) -> frozenset[str]:
    if isinstance(public, rsa.RSAPublicKey):
        return _RSA if RSA_BITS[0] <= public.key_size <= RSA_BITS[1] else frozenset()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return frozenset({_CURVES[public.curve.name]} if public.curve.name in _CURVES else ())
    return frozenset({"EdDSA"})
