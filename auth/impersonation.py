"""From an identity that a grant lets in to the Impersonate-* headers that its cluster will see.

Identities are never merged: the headers name the user as authenticated, or as the grant maps him, or as he asked
with --as, each as a whole. In the latter two the user's own name goes along as an extra.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from auth.decision import Decision, Impersonable
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

HUB = "hub"
"""The source (`auth.tokenreview.SOURCE`) whose service accounts are whom they claim to be."""
EVERYBODY = "system:authenticated"
_SERVICE_ACCOUNT = "system:serviceaccount"


@dataclass(frozen=True, slots=True)
class AsWhom:
    """Whom a grant makes of those that it matches; what nothing here speaks of stays the user's own.

    A fixed `user` has none of the user's groups, unless they are mapped. `group_map` holds pairs of own and new group;
    other groups get the prefix, or are left out.
    """

    user: str | None = None
    groups: tuple[str, ...] | None = None
    user_prefix: str = ""
    group_prefix: str = ""
    group_map: tuple[tuple[str, str], ...] = ()
    drop_unmapped: bool = False


def own_headers(identity: Identity, whom: AsWhom | None, allow: frozenset[str]) -> Pairs:
    """The headers of a user, or of whom the user's grant makes of him.

    :raises ImpersonationRefused: for a protected identity that `allow` does not name, and names no header
        can carry.
    """
    if any(_kept_by(key, "kulvert.dev") for key, _ in identity.extra):
        raise ImpersonationRefused("the identity carries an extra key of kulvert.dev, which only Kulvert writes")
    wanted = Impersonation(identity.user, identity.groups, identity.uid, identity.extra)
    if whom is not None:
        _check_accounts(identity, whom, allow)
        wanted = _mapped(wanted, whom)
    return _headers(wanted, allow)


def requested_headers(
    identity: Identity, decision: Decision, pairs: Iterable[tuple[bytes, bytes]]
) -> tuple[Impersonation, Pairs]:
    """The headers for a user's own --as, taken from the request's Impersonate-* headers; and whom they
    name, for the audit record.

    :raises ImpersonationRefused: the grant allows no --as, or not this one, or the headers are not well
        formed: answer 403.
    """
    if decision.pass_through:
        raise ImpersonationRefused("a service account of the cluster itself goes as itself: leave out --as")
    if not decision.allowed or not decision.allow_user_impersonation:
        raise ImpersonationRefused("your grant does not let you impersonate others: leave out --as and --as-group")
    wanted = read_impersonation(pairs)
    _check_granted(wanted, decision.allow_user_impersonation)
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


def _check_granted(wanted: Impersonation, granted: bool | Impersonable) -> None:
    """A grant for some names is none for uids and extras, which Kubernetes' RBAC gives rights of their own, too."""
    if not isinstance(granted, Impersonable):
        return
    if not granted.user(wanted.user):
        raise ImpersonationRefused(f"your grant does not let you impersonate the user {wanted.user!r}")
    for group in wanted.groups:
        if group != EVERYBODY and not granted.group(group):
            raise ImpersonationRefused(f"your grant does not let you impersonate the group {group!r}")
    if wanted.uid or wanted.extra:
        raise ImpersonationRefused("your grant lets you impersonate users and groups alone: leave out uid and extras")


def _check_accounts(identity: Identity, whom: AsWhom, allow: frozenset[str]) -> None:
    """A prefix or a map makes one of the hub's service accounts recognisable in the cluster; so nobody else may come
    out of it looking like one.
    """
    if identity.source == HUB:
        return
    derived = [identity.user] if whom.user_prefix else []
    derived += identity.groups if whom.group_prefix or whom.group_map else []
    for name in derived:
        if name.startswith(_SERVICE_ACCOUNT) and name not in allow:
            raise ImpersonationRefused(f"{name!r} is a service account's name, and does not come from the hub")


def _mapped(own: Impersonation, whom: AsWhom) -> Impersonation:
    """With another name of the user, neither the uid nor the extras go along, which speak of the first."""
    user = own.user if whom.user is None else whom.user
    user = whom.user_prefix + user if user else ""
    groups = _groups(own.groups, whom)
    if user == own.user:
        return Impersonation(user, groups, own.uid, (*own.extra, *_original(own.user)))
    return Impersonation(user, groups, "", _trail(own.user, own.extra))


def _groups(own: tuple[str, ...], whom: AsWhom) -> tuple[str, ...]:
    if whom.groups is not None:
        return whom.groups
    if not whom.group_prefix and not whom.group_map:
        return own if whom.user is None else ()
    if "" in own:
        raise ImpersonationRefused("a group is empty")  # and a prefix must not hide that
    known = dict(whom.group_map)
    mapped = (known.get(g) or ("" if whom.drop_unmapped else whom.group_prefix + g) for g in own if g != EVERYBODY)
    return tuple(dict.fromkeys(group for group in mapped if group))


def _trail(user: str, extra: Extra) -> Extra:
    """What leads from another identity back to the user: the name and the credential, and nothing else of theirs."""
    return (*_original(user), *(pair for pair in extra if pair[0] == CREDENTIAL_ID))


def _original(user: str) -> Extra:
    return ((ORIGINAL_USER, (user,)),)


def _kept_by(key: str, domain: str) -> bool:
    """Whether an extra key belongs to a domain or one below it."""
    prefix = key.partition("/")[0]
    return prefix == domain or prefix.endswith("." + domain)
