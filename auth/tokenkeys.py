"""The keys that sign Kulvert's own tokens, one after the other, with an overlap.

    published ──(activation)──► active ──(the next one's activation)──► retired ──(the longest token's life)──► gone

A key is published before it signs, so that whoever fetches the keys now and then knows it in time, and stays until the
last token that it may have signed has expired. The phases follow from the times of activation alone; nothing has to be
done at the right moment.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from auth.tokens import LONGEST, SKEW, VerificationKey

KEPT: Final = LONGEST + 2 * SKEW
"""Seconds that a key stays known after its last signature."""


class KeyRingError(ValueError):
    """A file holds no keys; the text says what to do."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An EC P-256 key. `created` and `active` are epoch seconds."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)
    created: float
    active: float

    @classmethod
    def new(cls, created: float, active: float) -> SigningKey:
        """One that was not there before."""
        return cls(ec.generate_private_key(ec.SECP256R1()), created, active)

    @property
    def verification(self) -> VerificationKey:
        """The public half."""
        return VerificationKey(self.private.public_key())


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys that count, by their activation. There is always one.

    `issuer` goes into the tokens: it is kept here, so that all who sign (the server, the command) say the same.
    """

    issuer: str
    keys: tuple[SigningKey, ...]

    def signing(self, now: float) -> SigningKey:
        """The one that signs. Where none is active (the clock was set back), the first will do: all know it."""
        active = [key for key in self.keys if key.active <= now]
        return active[-1] if active else self.keys[0]

    def phase(self, key: SigningKey, now: float) -> str:
        """published, active or retired."""
        if key == self.signing(now):
            return "active"
        return "published" if key.active > now else "retired"

    def gone(self, key: SigningKey) -> float | None:
        """When a key that has a successor will be forgotten."""
        later = [other.active for other in self.keys if other.active > key.active]
        return min(later) + KEPT if later else None

    def due(self, now: float, every: float, lead: float) -> bool:
        """Whether a successor is to be published now, to be active `every` seconds after the newest key was."""
        return now >= self.keys[-1].active + every - lead

    def rotated(self, now: float, lead: float) -> KeyRing:
        """With a new key that signs after `lead` seconds, and without those that are gone. One that waits for its
        activation already is enough.
        """
        kept = self.pruned(now)
        if kept.keys[-1].active > now:
            return kept
        return replace(kept, keys=(*kept.keys, SigningKey.new(now, now + lead)))

    def replaced(self, now: float) -> KeyRing:
        """With a new key alone, which signs at once: for when the others are in wrong hands. All tokens end."""
        return replace(self, keys=(SigningKey.new(now, now),))

    def pruned(self, now: float) -> KeyRing:
        """Without keys that are gone."""
        kept = [key for key in self.keys if (gone := self.gone(key)) is None or gone > now]
        return self if len(kept) == len(self.keys) else replace(self, keys=tuple(kept))

    def text(self) -> bytes:
        """For the keys' own file only: it is secret."""
        keys = [{"created": key.created, "active": key.active, "pem": _pem(key.private)} for key in self.keys]
        return json.dumps({"issuer": self.issuer, "keys": keys}, indent=1).encode()


def read_ring(text: bytes) -> KeyRing:
    """What `KeyRing.text` wrote. :raises KeyRingError: it is something else. The text itself is never repeated."""
    try:
        document = json.loads(text)
        keys = tuple(sorted(map(_key, document["keys"]), key=lambda key: key.active))
        issuer = document["issuer"]
    except (ValueError, TypeError, KeyError):
        keys, issuer = (), None
    if not keys or not isinstance(issuer, str) or not issuer:
        raise KeyRingError("holds no signing keys") from None
    return KeyRing(issuer, keys)


def private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """:raises ValueError: it is no P-256 key."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a P-256 key")
    return key


def jwk(key: VerificationKey) -> dict[str, str]:
    """A public key for publication (RFC 7517), with nothing of the private one. :raises ValueError: it is no P-256."""
    public = key.public
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("published are P-256 keys")
    numbers = public.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": _base64url(numbers.x.to_bytes(32, "big")),
        "y": _base64url(numbers.y.to_bytes(32, "big")),
        "use": "sig",
        "alg": key.algorithm,
        "kid": key.kid,
    }


def _key(entry: Mapping[str, Any]) -> SigningKey:
    return SigningKey(private_key(entry["pem"].encode()), float(entry["created"]), float(entry["active"]))


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode("ascii")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
