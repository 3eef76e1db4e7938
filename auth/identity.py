"""Who a user is, and what a listener saw of them. Every authenticator turns `Credentials` into an `Identity`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from tunnel.impersonate import CREDENTIAL_ID, Extra, Pairs

_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")


class BadIdentity(ValueError):
    """The credential is genuine, but names somebody whom nothing downstream could write down."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated user. `credential_id` is fit for audit records; `expires` is the end of the
    credential, epoch seconds. `cluster` is set for a service account of that one managed cluster: it is nobody
    elsewhere.

    The hash covers source and credential only, because it is taken for each request; equality covers
    everything, so two credentials that claim one id are still two identities.

    :raises BadIdentity: a lone surrogate (JSON can escape one) is in it: no header and no audit record takes that.
    """

    user: str
    groups: tuple[str, ...]
    uid: str
    extra: Extra
    source: str
    credential_id: str
    expires: float
    cluster: str = ""

    def __post_init__(self) -> None:
        extra = [text for key, values in self.extra for text in (key, *values)]
        if not _encodable("".join((self.user, *self.groups, self.uid, self.credential_id, *extra))):
            raise BadIdentity("the credential names its user in text that is not Unicode")

    def __hash__(self) -> int:
        return hash((self.source, self.credential_id))


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What the listener saw: the Authorization header's value, the peer certificate that TLS verified, and
    where that is a front proxy's (`auth.frontproxy`) the headers that say for whom it asks. From anybody else
    such headers are not even read, and `remote_headers` is None.

    `digest` stands for all of it in caches. It is taken once here: a listener keeps the object for as long
    as the connection shows the same.
    """

    authorization: bytes | None = None
    certificate: bytes | None = None
    remote_headers: Pairs | None = None
    digest: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        parts = [self.authorization, self.certificate]
        if self.remote_headers is not None:
            parts += [part for pair in self.remote_headers for part in pair]
        # Lengths go in front, and absence differs from emptiness: no two credentials may run into one.
        framed = b"".join(b"-" if part is None else b"%d:%b" % (len(part), part) for part in parts)
        framed += b"-" if self.remote_headers is None else b"+"
        object.__setattr__(self, "digest", hashlib.sha256(framed).digest())

    @property
    def absent(self) -> bool:
        """Whether the request carries nothing that an authenticator could look at."""
        return self.authorization is None and self.certificate is None

    @property
    def bearer(self) -> str | None:
        """The bearer token (RFC 6750, section 2.1), or None where the header is missing, malformed or of
        another scheme.
        """
        match = _BEARER.fullmatch(self.authorization or b"")
        return match[1].decode("ascii") if match else None

    def __repr__(self) -> str:
        seen = {
            "authorization": self.authorization is not None,
            "certificate": self.certificate is not None,
            "remote headers": self.remote_headers is not None,
        }
        return f"<Credentials: {', '.join(name for name, here in seen.items() if here) or 'none'}>"


def credential_extra(credential_id: str) -> Extra:
    """The extra that Kubernetes itself gives its users, so that a cluster's audit log leads back to the
    credential (KEP-4193).
    """
    return ((CREDENTIAL_ID, (credential_id,)),)


def _encodable(text: str) -> bool:
    # A high and a low surrogate that only joining brings together stay two characters: no pair is made here.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
