"""Taking a JWT apart (RFC 7515, section 7.1; RFC 7519), so strictly that one token has one spelling only.

Nothing of it is to be believed before a key has verified `signed`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from auth.oidc.strictjson import BadJson, read_object

MAX_BYTES: Final = 16 * 1024

_PARTS: Final = 3
_TYPES: Final = frozenset({"jwt", "at+jwt"})
"""Tokens that stand for a user; not those of other kinds that an issuer may sign (logout+jwt and the like)."""


class BadToken(ValueError):
    """Not a token that can be taken; the text says why, and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart. `kid` is the name of its key, if it has one."""

    algorithm: str
    kid: str | None
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def issuer_of(token: str) -> str | None:
    """Whose token it says it is; None where it is no token that says so. Never raises: here it may be anybody's."""
    parts = token.split(".")
    if len(parts) != _PARTS:
        return None
    try:
        claims = json.loads(_decoded(parts[1]))
    except (ValueError, RecursionError):
        return None
    found = claims.get("iss") if isinstance(claims, dict) else None
    return found if isinstance(found, str) else None


def read_token(token: str) -> Token:
    """Takes apart. :raises BadToken: it is too large, malformed, or asks for something that is not done here."""
    if len(token) > MAX_BYTES:
        raise BadToken(f"the token is larger than {MAX_BYTES} bytes: have its issuer put less into it")
    parts = token.split(".")
    if len(parts) != _PARTS:
        raise BadToken("the token has not three parts")
    try:
        header, claims = (read_object(_decoded(part)) for part in parts[:2])
        signature = _decoded(parts[2])
    except BadJson as bad:
        raise BadToken(f"a part of the token {bad}") from None
    except ValueError:
        raise BadToken("a part of the token is not base64url") from None
    algorithm, kid = _checked(header)
    return Token(algorithm, kid, claims, token.rpartition(".")[0].encode(), signature)


def _checked(header: Mapping[str, Any]) -> tuple[str, str | None]:
    """The algorithm and the key's name. Keys and addresses in a header are the bearer's word, and are not even read."""
    if "crit" in header or "b64" in header:
        raise BadToken("the token demands extensions (crit) that Kulvert does not have")
    if "enc" in header or "zip" in header or "cty" in header:
        raise BadToken("the token is encrypted, or holds another one")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise BadToken("the token is of a type that stands for no user")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(kid, str | None):
        raise BadToken("the token's alg and kid must be text")
    return algorithm, kid


def _decoded(part: str) -> bytes:
    """:raises ValueError: it is not base64url without padding, in the one spelling that its bytes have."""
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise ValueError("not base64url in its one spelling")
    return data
