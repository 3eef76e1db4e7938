"""Tokens of an issuer whose key a test holds: one good kind, and every way in which a token can be bad.

What a library would refuse to make (no algorithm, a public key for a secret) is put together by hand.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Sign = Callable[[bytes], bytes]
HOUR = 3600


@dataclass(frozen=True)
class Forge:
    """`claims` are those of a good token, but for its times and its jti. `other` is another kid of the same issuer."""

    key: PrivateKey = field(repr=False)
    kid: str
    claims: Mapping[str, Any]
    now: int
    other: str = ""
    type: str = "JWT"

    @property
    def algorithm(self) -> str:
        """The one of the key."""
        return "RS256" if isinstance(self.key, rsa.RSAPrivateKey) else "ES256"

    def good(self, **claims: Any) -> str:
        """A token like no other; None takes a claim out."""
        return self._token({}, self._signing(self.key), claims)

    def bad(self) -> dict[str, str]:
        """By what is wrong with each. (Whether a kid may lack, say, is the verifier's to decide: see `headed`.)"""
        now, sign = self.now, self._signing(self.key)
        stranger = rsa.generate_private_key(65537, 2048) if self.algorithm == "RS256" else _curve_key()
        foreign = self._signing(stranger)
        public = self.key.public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        good = self.good()
        return {
            "expired": self._token({}, sign, {"exp": now - HOUR, "iat": now - 2 * HOUR, "nbf": now - 2 * HOUR}),
            "not yet valid": self._token({}, sign, {"nbf": now + HOUR, "iat": now + HOUR, "exp": now + 2 * HOUR}),
            "without an end": self._token({}, sign, {"exp": None}),
            "wrongly signed": self._token({}, foreign, {}),
            "signed for another text": f"{good.rpartition('.')[0]}.{self.good().rpartition('.')[2]}",
            "another user put in": _renamed(good),
            "without its signature": good.rpartition(".")[0] + ".",
            "of two parts": good.rpartition(".")[0],
            "for another audience": self._token({}, sign, {"aud": "somebody-else"}),
            "for no audience": self._token({}, sign, {"aud": []}),
            "of another issuer": self._token({}, sign, {"iss": "https://elsewhere.test"}),
            "alg=none": self._token({"alg": "none"}, lambda _: b"", {}),
            "alg=nOnE": self._token({"alg": "nOnE"}, lambda _: b"", {}),
            "alg=none, signed": self._token({"alg": "none"}, sign, {}),
            "HS256 with the public key, PEM": self._token({"alg": "HS256"}, _hs256(pem), {}),
            "HS256 with the public key, DER": self._token({"alg": "HS256"}, _hs256(der), {}),
            "HS256 with nothing": self._token({"alg": "HS256"}, _hs256(b""), {}),
            "the kid of another key": self._token({"kid": self.other or "../../dev/null"}, sign, {}),
            "the kid of no key": self._token({"kid": "nobody's"}, sign, {}),
            "a key of its own": self._token({"jwk": _jwk(stranger), "kid": None}, foreign, {}),
            "a key elsewhere": self._token({"jku": "https://evil.test/keys"}, foreign, {}),
            "a critical extension": self._token({"crit": ["x"], "x": 1}, sign, {}),
            "encrypted (JWE)": ".".join(
                [
                    _part({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": self.kid}),
                    *(_base64(os.urandom(24)) for _ in "1234"),
                ]
            ),
        }

    def headed(self, **header: Any) -> str:
        """A good one but for its header, which None takes members out of."""
        return self._token(header, self._signing(self.key), {})

    def _token(self, header: Mapping[str, Any], sign: Sign, claims: Mapping[str, Any]) -> str:
        told = {"alg": self.algorithm, "kid": self.kid, "typ": self.type, **header}
        times = {"iat": self.now, "exp": self.now + HOUR, "jti": os.urandom(12).hex()}
        said = {**self.claims, **times, **claims}
        signed = ".".join(_part({key: one for key, one in part.items() if one is not None}) for part in (told, said))
        return f"{signed}.{_base64(sign(signed.encode()))}"

    def _signing(self, key: PrivateKey) -> Sign:
        algorithm: Any = jwt.get_algorithm_by_name(self.algorithm)
        return lambda signed: bytes(algorithm.sign(signed, key))


def _curve_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _hs256(secret: bytes) -> Sign:
    return lambda signed: hmac.new(secret, signed, hashlib.sha256).digest()


def _renamed(token: str) -> str:
    head, claims, signature = token.split(".")
    told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return f"{head}.{_part({**told, 'sub': 'admin', 'groups': ['kulvert:admins']})}.{signature}"


def _jwk(key: PrivateKey) -> dict[str, Any]:
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return dict(jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True))
    return dict(jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True))


def _part(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
