"""Who gets a credential of Kulvert's, and for how long. Pure decisions.

A *login* is a request with somebody else's credential: an OIDC token, say. What Kulvert issues for it is good for a
bounded time, and may be renewed by showing it, up to `renewable_for` after the login; from credential to credential
that end is carried on in the record of each, and never moves. Showing a credential that Kulvert has no such record of
(a certificate of another authority, one that an administrator made) gets nothing that outlives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from auth import frontproxy, tokens, x509
from auth.identity import Identity
from gateway.issuing.store import IssuedCredential
from tunnel.impersonate import CREDENTIAL_ID, Extra, protected_identity

LEAST: Final = 60.0
"""Seconds of life that are worth a credential."""
_SERVICE_ACCOUNT: Final = "system:serviceaccount:"
_OWN_END: Final = frozenset((x509.SOURCE, tokens.SOURCE))


class NotIssued(Exception):
    """This caller gets none; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Term:
    """Until when a credential is good, and until when it may be renewed. Epoch seconds."""

    expires: float
    renewable_until: float


def check_caller(identity: Identity) -> None:
    """:raises NotIssued: no credential is made for such a one."""
    if identity.cluster or identity.user.startswith(_SERVICE_ACCOUNT):
        raise NotIssued("service accounts use the tokens of their own cluster")
    if identity.source == frontproxy.SOURCE:
        raise NotIssued("you came through a front proxy, which answers for you only in each request: log in directly")
    if reason := protected_identity(identity.user, identity.groups):
        raise NotIssued(reason)


def own_extra(identity: Identity) -> Extra:
    """What a credential has to carry beside the name: all but the id of the one that was shown."""
    return tuple(pair for pair in identity.extra if pair[0] != CREDENTIAL_ID)


def term(
    identity: Identity, shown: IssuedCredential | None, asked: float, lifetime: float, renewable_for: float, now: float
) -> Term:
    """How long a new credential is good. `shown` is the record of the one that the caller has, `asked` and the rest
    are seconds.

    :raises NotIssued: the login is too long ago.
    """
    end = _end(identity, shown, renewable_for, now)
    expires = min(now + min(asked, lifetime), end)
    if expires < now + LEAST:
        raise NotIssued("what you log in with ends now, and this would outlive it: log in anew")
    return Term(expires, end)


def _end(identity: Identity, shown: IssuedCredential | None, renewable_for: float, now: float) -> float:
    if shown is not None:
        return shown.renewable_until
    return identity.expires if identity.source in _OWN_END else now + renewable_for


def has_record(identity: Identity) -> bool:
    """Whether the credential that was shown may be one that Kulvert has issued."""
    return identity.source in _OWN_END
