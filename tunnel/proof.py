"""What an agent proves in hello, and over what (docs/protocol.md, 3): proofs that bind everything they are good for.

An enrolment is proved by the join token's key, a shared link by a signature of the certificate's, an own link by its
session's secret. A proof is worthless on another connection (the challenge), for another replica or holding (server,
epoch), under another name (what the agent dialled), or for another cluster; so identity survives a load balancer that
terminates TLS.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def encode(raw: bytes) -> str:
    """base64url without padding, as all binary fields of control messages are."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The bytes of a base64url field. Raises ValueError where it is none."""
    if "+" in text or "/" in text:
        raise ValueError("base64, but not base64url")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


_JOIN_TOKEN: Final = re.compile(r"kvt_([a-z2-7]{16})\.([A-Za-z0-9_-]{43})")


def parse_join_token(text: str) -> tuple[str, bytes]:
    """(id, secret) of a join token `kvt_<id>.<secret>`. Raises ValueError, which never quotes the text."""
    found = _JOIN_TOKEN.fullmatch(text)
    if not found:
        raise ValueError("a join token reads kvt_<id>.<secret>: copy it whole, without spaces or quotes")
    return found[1], decode(found[2])


def join_key(token_id: str, secret: bytes) -> bytes:
    """The HMAC key of a join token (HKDF-SHA256, RFC 5869, one block): the stub keeps this, never the secret."""
    extracted = hmac.digest(token_id.encode(), secret, hashlib.sha256)
    return hmac.digest(extracted, b"kulvert join v1\x01", hashlib.sha256)


def _sign(key: bytes, *lines: str) -> str:
    return encode(hmac.digest(key, "\n".join(lines).encode(), hashlib.sha256))


def _digest(data: bytes) -> str:
    return encode(hashlib.sha256(data).digest())


def enrol(
    key: bytes,
    challenge: str,
    hello: str,
    epoch: int,
    server: str,
    name: str,
    cluster: str,
    cluster_id: str,
    instance: str,
    csr: str,
) -> str:
    """The proof of an enrolment; the key is the join token's (`join_key`)."""
    lines = (challenge, hello, str(epoch), server, name, cluster, cluster_id, instance, _digest(csr.encode()))
    return _sign(key, "kulvert enrol v1", *lines)


def shared(
    challenge: str,
    hello: str,
    epoch: int,
    server: str,
    name: str,
    cluster: str,
    cluster_id: str,
    instance: str,
    certificate: bytes,
) -> bytes:
    """What the proof of a shared link signs (`sign`); `certificate` is the DER of the one whose key does."""
    lines = (challenge, hello, str(epoch), server, name, cluster, cluster_id, instance, _digest(certificate))
    return "\n".join(("kulvert shared v2", *lines)).encode()


def sign(key: PrivateKey, data: bytes) -> str:
    """A signature: ECDSA with SHA-256, or Ed25519."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return encode(key.sign(data))
    return encode(key.sign(data, ec.ECDSA(hashes.SHA256())))


def signed(key: PublicKey, data: bytes, signature: str) -> bool:
    """Whether `signature` is one of `data` by that key."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(decode(signature), data)
        else:
            key.verify(decode(signature), data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def own(key: bytes, challenge: str, hello: str, epoch: int, server: str, name: str, session: str, link_id: int) -> str:
    """The proof of an own link; the key is its session's secret."""
    return _sign(key, "kulvert own v1", challenge, hello, str(epoch), server, name, session, str(link_id))


def supersede(key: bytes, challenge: str, hello: str, session: str) -> str:
    """The proof that an older session was the same agent's; the key is that session's secret."""
    return _sign(key, "kulvert supersede v1", challenge, hello, session)


def matches(expected: str, given: str) -> bool:
    """Whether two proofs are the same, in constant time."""
    return hmac.compare_digest(expected.encode(), given.encode())
