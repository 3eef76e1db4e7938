"""The grammar of Kubernetes' Impersonate-* headers, and the identities that nobody may take by them.

Both ends of the tunnel use this file: the gateway writes the headers with `headers_for`, and the agent,
which trusts no gateway blindly, reads them again with `checked_impersonation` before it adds its own token.
An impersonating proxy fails open: a head without a valid Impersonate-User would run as the proxy itself, so
whatever is not understood is refused.

Sources: kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation; escaping as in
client-go's `transport.headerKeyEscape`; reading as in apiserver's `filters/impersonation`, which
lower-cases a name and then decodes it.

Values are UTF-8, as Go reads them: directories do have groups called "Équipe", and refusing one group would
lock its members out. RBAC compares bytes, so a look-alike of a built-in name has no power; it is refused
all the same, because people read audit records. Only printable characters pass, which leaves out controls,
zero-width and directional characters and odd spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from tunnel.errors import TunnelError

Extra: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
Pairs: TypeAlias = tuple[tuple[bytes, bytes], ...]

CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
ORIGINAL_USER = "kulvert.dev/original-user"

_PREFIX = b"impersonate"
_USER = b"impersonate-user"
_GROUP = b"impersonate-group"
_UID = b"impersonate-uid"
_EXTRA = b"impersonate-extra-"
_AUTHENTICATED = "system:authenticated"
_SERVICE_ACCOUNT = "system:serviceaccount:"
_BUILT_IN = ("system:", "kubeadm:")  # kubeadm:cluster-admins is bound to cluster-admin by kubeadm itself
_SYSTEM = "system:"
_MUST_ESCAPE = re.compile(rb"[^!#$&'*+\-.0-9A-Z^_`a-z|~]")
_EXTRA_KEY = re.compile(r"[!-@\[-~]+")
_CACHED_BYTES = 4096


class ImpersonationRefused(TunnelError):
    """These names cannot be written as, or taken from, Impersonate-* headers. The text is fit for a user to read."""


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Whom a request asks to be. `uid` is empty where none was named."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Extra = ()


def headers_for(user: str, groups: Iterable[str], uid: str, extra: Extra) -> Pairs:
    """The header pairs that make kube-apiserver see this user: names in lower case, one pair for each group
    and extra value.

    system:authenticated is left out, since kube-apiserver adds it.
    :raises ImpersonationRefused: for an empty user, or a name or value that a header cannot carry
        unchanged.
    """
    pairs = [(_USER, _encoded(user, "user"))]
    kept = dict.fromkeys(group for group in groups if group != _AUTHENTICATED)
    pairs += [(_GROUP, _encoded(group, "group")) for group in kept]
    if uid:
        pairs.append((_UID, _encoded(uid, "uid")))
    for key, values in extra:
        name = _EXTRA + _escaped(key)
        pairs += [(name, _encoded(value, "extra value")) for value in values]
    return tuple(pairs)


def read_impersonation(pairs: Iterable[tuple[bytes, bytes]]) -> Impersonation:
    """Reads whom the Impersonate-* headers among `pairs` name; other headers are passed over.

    :raises ImpersonationRefused: unless there is exactly one user, at most one uid, and nothing but known,
        well-formed names.
    """
    users: list[str] = []
    groups: list[str] = []
    uids: list[str] = []
    extra: dict[str, list[str]] = {}
    singles = {_USER: users, _GROUP: groups, _UID: uids}
    for name, value in pairs:
        name = name.lower()
        if not name.startswith(_PREFIX):
            continue
        if (values := singles.get(name)) is None:
            values = extra.setdefault(_extra_key(name), [])
        values.append(_decoded(value))
    if len(users) != 1 or len(uids) > 1:
        raise ImpersonationRefused("a request needs exactly one Impersonate-User, and at most one Impersonate-Uid")
    frozen = tuple((key, tuple(values)) for key, values in extra.items())
    return Impersonation(users[0], tuple(groups), uids[0] if uids else "", frozen)


def protected_identity(user: str, groups: Iterable[str], allow: frozenset[str] = frozenset()) -> str | None:
    """Why this identity must not be taken, or None. `allow` names exact users and groups that are allowed
    all the same.

    A service account as a user comes from another source than the cluster's own tokens, so it is protected;
    where it is allowed, its own two groups go with it. An empty name is never allowed.
    """
    if not user:
        return "the user is empty"
    if built_in(user) and user not in allow:
        return f"the user {_shown(user)} is protected: Kubernetes gives such names rights of their own"
    own = _service_account_groups(user)
    for group in groups:
        if not group:
            return "a group is empty"
        if built_in(group) and group != _AUTHENTICATED and group not in allow and group not in own:
            return f"the group {_shown(group)} is protected: Kubernetes gives such names rights of their own"
    return None


def protected_extra(key: str) -> str | None:
    """Why an extra key must not be written, or None: Kubernetes keeps its own domains for itself (node and
    pod claims).
    """
    domain = key.partition("/")[0].lower()
    for kept in ("kubernetes.io", "k8s.io"):
        if (domain == kept or domain.endswith("." + kept)) and key != CREDENTIAL_ID:
            return f"the extra key {_shown(key)} is reserved by Kubernetes"
    return None


def checked_impersonation(pairs: Iterable[tuple[bytes, bytes]], allow_protected: frozenset[str]) -> None:
    """The agent's check of a received head: what passes may be sent to the API server with the agent's own
    token.

    :raises ImpersonationRefused: for everything that `read_impersonation` refuses, and for protected
        identities.
    """
    found = tuple([pair for pair in pairs if pair[0][:11].lower() == _PREFIX])
    size = sum([len(name) + len(value) for name, value in found])
    judge = _verdict if size <= _CACHED_BYTES else _verdict.__wrapped__
    if (reason := judge(found, allow_protected)) is not None:
        raise ImpersonationRefused(reason)


@lru_cache(maxsize=512)
def _verdict(pairs: Pairs, allow: frozenset[str]) -> str | None:
    """A pure function of headers that repeat from request to request, so it is remembered; its keys are
    bounded above.
    """
    try:
        wanted = read_impersonation(pairs)
    except ImpersonationRefused as refused:
        return str(refused)
    reasons = (protected_extra(key) for key, _ in wanted.extra)
    return protected_identity(wanted.user, wanted.groups, allow) or next(filter(None, reasons), None)


def built_in(name: str) -> bool:
    """Whether a name is one of Kubernetes' own, or is written so as to look like one."""
    if name.isascii():
        return name.strip().lower().startswith(_BUILT_IN)
    folded = unicodedata.normalize("NFKC", name).strip().casefold()
    return folded.startswith(_BUILT_IN) or _resembles_system(folded)


def _resembles_system(name: str) -> bool:
    """Whether `name` differs from `system:` only by letters of other scripts; two equal ones spare words
    like "Команда".
    """
    if len(name) < len(_SYSTEM):
        return False
    places = list(zip(name, _SYSTEM, strict=False))
    return all(a == b or not a.isascii() for a, b in places) and sum(a == b for a, b in places) >= 2


def _service_account_groups(user: str) -> frozenset[str]:
    if not user.startswith(_SERVICE_ACCOUNT):
        return frozenset()
    namespace = user[len(_SERVICE_ACCOUNT) :].partition(":")[0]
    return frozenset({"system:serviceaccounts", f"system:serviceaccounts:{namespace}"})


def _encoded(value: str, what: str) -> bytes:
    if not value or value != value.strip() or not value.isprintable():
        raise ImpersonationRefused(f"the {what} {_shown(value)} cannot be written in a header unchanged")
    return value.encode()  # isprintable() has left out lone surrogates


def _decoded(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise ImpersonationRefused("an Impersonate header is not UTF-8") from None
    _encoded(text, "value of an Impersonate header")
    return text


def _escaped(key: str) -> bytes:
    """Upper case is refused: kube-apiserver would fold it, and two keys would become one."""
    if not _EXTRA_KEY.fullmatch(key):
        raise ImpersonationRefused(f"the extra key {_shown(key)} is not lower-case ASCII")
    return _MUST_ESCAPE.sub(lambda byte: b"%%%02x" % byte[0][0], key.encode())


def _extra_key(name: bytes) -> str:
    """The key of an Impersonate-Extra- header, which must be spelt as `_escaped` spells it: two spellings
    of one key would merge.
    """
    escaped = name.removeprefix(_EXTRA)
    key = unquote_to_bytes(escaped).decode("latin-1")
    if escaped == name or _escaped(key) != escaped:
        raise ImpersonationRefused(f"{_shown(name.decode('latin-1'))} is no Impersonate header that Kulvert knows")
    return key


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else name[:80] + "…")
