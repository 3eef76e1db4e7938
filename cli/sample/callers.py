"""Who asks: a bearer token names a caller, and Impersonate-* headers turn it into another.

The rules are kube-apiserver's, because Kulvert's whole identity model ends in these headers: every value is
checked separately, and a group without a user is refused rather than ignored.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from multidict import CIMultiDictProxy

from cli.sample.attributes import Attributes
from cli.sample.status import bad_request, internal, unauthorized

AUTHENTICATION = "authentication.k8s.io"
_SA_PREFIX = "system:serviceaccount:"
_EXTRA_PREFIX = "impersonate-extra-"

Extra = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Caller:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Extra = ()


AGENT = Caller(
    "system:serviceaccount:kulvert:kulvert-agent",
    ("system:serviceaccounts", "system:serviceaccounts:kulvert", "system:authenticated"),
)


def authenticate(authorization: str | None, callers: Mapping[str, Caller]) -> Caller:
    """The caller of a bearer token; every known token is compared, in constant time."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise unauthorized()
    given = token.strip().encode()
    found = [caller for known, caller in callers.items() if hmac.compare_digest(known.encode(), given)]
    if not found:
        raise unauthorized()
    return found[0]


def impersonated(headers: CIMultiDictProxy[str]) -> Caller | None:
    """The caller that the headers ask for, or None where they ask for none."""
    name = headers.get("Impersonate-User", "")
    groups = tuple(headers.getall("Impersonate-Group", ()))
    uid = headers.get("Impersonate-Uid", "")
    extra = _extra(headers)
    if not name:
        if groups or uid or extra:
            raise internal("requested groups, uid or extra without impersonating a user")
        return None
    if len(headers.getall("Impersonate-User")) > 1:
        raise bad_request("Impersonate-User is given more than once")
    return Caller(name, _groups(name, groups), uid, extra)


def impersonation_checks(headers: CIMultiDictProxy[str]) -> list[Attributes]:
    """One authorisation question for each value that is asked for."""
    name = headers.get("Impersonate-User", "")
    checks = [_of_user(name)]
    checks += [_ask("groups", group) for group in headers.getall("Impersonate-Group", ())]
    if uid := headers.get("Impersonate-Uid", ""):
        checks.append(_ask("uids", uid, AUTHENTICATION))
    for key, values in _extra(headers):
        checks += [_ask("userextras", value, AUTHENTICATION, key) for value in values]
    return checks


def caller_of(
    headers: CIMultiDictProxy[str],
    callers: Mapping[str, Caller],
    check: Callable[[Caller, Attributes], None],
) -> Caller:
    """The caller a request runs as; `check` raises where the authenticated one may not impersonate."""
    real = authenticate(headers.get("Authorization"), callers)
    other = impersonated(headers)
    if other is None:
        return real
    for question in impersonation_checks(headers):
        check(real, question)
    return other


def _of_user(name: str) -> Attributes:
    if name.startswith(_SA_PREFIX) and name.count(":") == 3:
        namespace, account = name.removeprefix(_SA_PREFIX).split(":")
        return Attributes("impersonate", "", resource="serviceaccounts", namespace=namespace, name=account)
    return _ask("users", name)


def _ask(resource: str, name: str, group: str = "", subresource: str = "") -> Attributes:
    return Attributes("impersonate", "", group, "v1", resource, subresource, "", name)


def _groups(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """As kube-apiserver: a service account's groups if none are given, and the authenticated group always."""
    if not groups and name.startswith(_SA_PREFIX):
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{name.split(':')[2]}")
    everyone = "system:unauthenticated" if name == "system:anonymous" else "system:authenticated"
    return groups if everyone in groups else (*groups, everyone)


def _extra(headers: CIMultiDictProxy[str]) -> Extra:
    found: dict[str, list[str]] = {}
    for header, value in headers.items():
        if header.lower().startswith(_EXTRA_PREFIX):
            key = unquote(header[len(_EXTRA_PREFIX) :].lower())
            found.setdefault(key, []).append(value)
    return tuple((key, tuple(values)) for key, values in found.items())
