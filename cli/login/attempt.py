"""One try at a sign-in in the browser: what is sent there, and whether what comes back is the answer to it.

RFC 6749 with PKCE (RFC 7636, S256 alone), OIDC's nonce, and RFC 9207 against answers of another issuer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from cli.failures import Failed
from cli.login.address import plain
from cli.login.issuer import Issuer
from cli.login.stored import Client

Random = Callable[[int], bytes]
_FIELDS = 16


class Foreign(Exception):
    """What came is not the answer to this attempt: any page in the browser can send such a thing. Wait on."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Its three secrets, each of 256 random bits."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)

    @classmethod
    def new(cls, random: Random) -> Attempt:
        """A fresh one: none is used twice."""
        return cls(*(_text(random(32)) for _ in range(3)))

    @property
    def challenge(self) -> str:
        """What the issuer sees of the verifier before the end."""
        return _text(hashlib.sha256(self.verifier.encode()).digest())

    def url(self, issuer: Issuer, client: Client, redirect: str) -> str:
        """Where the browser is sent."""
        query = {
            "response_type": "code",
            "client_id": client.id,
            "redirect_uri": redirect,
            "scope": " ".join(client.scopes),
            "state": self.state,
            "nonce": self.nonce,
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
        }
        return issuer.authorization + ("&" if "?" in issuer.authorization else "?") + urlencode(query)

    def code(self, issuer: Issuer, query: str) -> str:
        """The code in an answer. :raises Foreign: it is not to this attempt. :raises Failed: the issuer says no."""
        found = _fields(query)
        if not hmac.compare_digest(found.get("state", "").encode(), self.state.encode()):
            raise Foreign
        if found.get("iss", issuer.url if not issuer.names_itself else "") != issuer.url:
            raise Failed("the answer in the browser is another issuer's: nothing was sent there; sign in again")
        if error := found.get("error"):
            told = f"{plain(error)} {plain(found.get('error_description'))}".strip()
            raise Failed(f"the issuer refused the sign-in: {told}; `kulvert login` tries again")
        if not found.get("code"):
            raise Failed("the issuer's answer in the browser has no code: sign in again with `kulvert login`")
        return found["code"]


def _fields(query: str) -> dict[str, str]:
    """:raises Foreign: it is no proper query, or names something twice."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        raise Foreign from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Foreign
    return found


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
