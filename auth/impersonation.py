"""From an identity that a grant lets in to the Impersonate-* headers that its cluster will see.

Identities are never merged: the headers name the user as authenticated, or the grant's static identity, or
the one that the user asked for with --as, each as a whole. In the latter two the user's own name goes along
as an extra.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from auth.decision import Decision
from auth.identity import Identity
from tunnel.impersonate import (
    CREDENTIAL_ID,
    ORIGINAL_USER,
    Extra,
    Impersonation,
    ImpersonationRefused,
    Pairs,
    headers_for,
    protected_extra,
    protected_identity,
    read_impersonation,
)


@dataclass(frozen=True, slots=True)
class StaticIdentity:
    """Whom a grant makes of everybody it matches. What is None stays the user's own."""

    user: str | None = None
    groups: tuple[str, ...] | None = None


def own_headers(identity: Identity, static: StaticIdentity | None, allow: frozenset[str]) -> Pairs:
    """The headers of a user, or of the static identity of the user's grant.

    :raises ImpersonationRefused: for a protected identity that `allow` does not name, and names no header
        can carry.
    """
    if any(_kept_by(key, "kulvert.dev") for key, _ in identity.extra):
        raise ImpersonationRefused("the identity carries an extra key of kulvert.dev, which only Kulvert writes")
    wanted = Impersonation(identity.user, identity.groups, identity.uid, identity.extra)
    if static is not None:
        wanted = _replaced(wanted, static)
    return _headers(wanted, allow)


def requested_headers(
    identity: Identity, decision: Decision, pairs: Iterable[tuple[bytes, bytes]]
) -> tuple[Impersonation, Pairs]:
    """The headers for a user's own --as, taken from the request's Impersonate-* headers; and whom they
    name, for the audit record.

    :raises ImpersonationRefused: the grant allows no --as, or not this one, or the headers are not well
        formed: answer 403.
    """
    if not decision.allowed or not decision.allow_user_impersonation:
        raise ImpersonationRefused("your grant does not let you impersonate others: leave out --as and --as-group")
    wanted = read_impersonation(pairs)
    for key, _ in wanted.extra:
        if _kept_by(key, "kulvert.dev") or _kept_by(key, "kubernetes.io") or _kept_by(key, "k8s.io"):
            raise ImpersonationRefused(f"the extra key {key!r} is not yours to set")
    extra = (*wanted.extra, *_trail(identity.user, identity.extra))
    marked = Impersonation(wanted.user, wanted.groups, wanted.uid, extra)
    return wanted, _headers(marked, decision.allow_protected)


def _headers(wanted: Impersonation, allow: frozenset[str]) -> Pairs:
    reason = protected_identity(wanted.user, wanted.groups, allow)
    for key, _ in wanted.extra:
        reason = reason or protected_extra(key)
    if reason is not None:
        raise ImpersonationRefused(reason)
    return headers_for(wanted.user, wanted.groups, wanted.uid, wanted.extra)


def _replaced(own: Impersonation, static: StaticIdentity) -> Impersonation:
    """The user's own groups do not go along; with another user, neither do the uid and the extras, which
    speak of the first.
    """
    groups = static.groups or ()
    if static.user is None:
        return Impersonation(own.user, groups, own.uid, (*own.extra, *_original(own.user)))
    return Impersonation(static.user, groups, "", _trail(own.user, own.extra))


def _trail(user: str, extra: Extra) -> Extra:
    """What leads from another identity back to the user: the name and the credential, and nothing else of theirs."""
    return (*_original(user), *(pair for pair in extra if pair[0] == CREDENTIAL_ID))


def _original(user: str) -> Extra:
    return ((ORIGINAL_USER, (user,)),)


def _kept_by(key: str, domain: str) -> bool:
    """Whether an extra key belongs to a domain or one below it."""
    prefix = key.partition("/")[0]
    return prefix == domain or prefix.endswith("." + domain)
