"""What an agent proves in hello, and over what (docs/protocol.md, 3): HMACs that bind everything they are good for.

A proof is worthless on another connection (the challenge), for another replica or holding (server, epoch), under
another name (what the agent dialled), or for another cluster; so identity survives a load balancer that terminates TLS.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

NONCE_BYTES: Final = 32


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


def shared(
    key: bytes,
    challenge: str,
    hello: str,
    epoch: int,
    server: str,
    name: str,
    cluster: str,
    cluster_id: str,
    instance: str,
) -> str:
    """The proof of a shared link."""
    return _sign(key, "kulvert shared v1", challenge, hello, str(epoch), server, name, cluster, cluster_id, instance)


def own(key: bytes, challenge: str, hello: str, epoch: int, server: str, name: str, session: str, link_id: int) -> str:
    """The proof of an own link; the key is its session's secret."""
    return _sign(key, "kulvert own v1", challenge, hello, str(epoch), server, name, session, str(link_id))


def supersede(key: bytes, challenge: str, hello: str, session: str) -> str:
    """The proof that an older session was the same agent's; the key is that session's secret."""
    return _sign(key, "kulvert supersede v1", challenge, hello, session)


def matches(expected: str, given: str) -> bool:
    """Whether two proofs are the same, in constant time."""
    return hmac.compare_digest(expected.encode(), given.encode())
