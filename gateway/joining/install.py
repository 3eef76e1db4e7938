"""The agent's installation in a cluster by a credential of it: whose cluster it is, a trial, and server-side apply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from gateway.joining.manifest import Object, path_of

MANAGER: Final = "kulvert"
APPLY: Final = "application/apply-patch+yaml"
CONSTRAINED: Final = (1, 36)
"""From this version on an API server has constrained impersonation, if nobody has switched it off."""


class JoinFailed(Exception):
    """The agent cannot be installed; the text says why, and holds no secret."""


class Reply(Protocol):
    """An API server's answer, whatever its status."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> Mapping[str, Any]: ...
    @property
    def message(self) -> str:
        """What it says of it."""
        ...


class Api(Protocol):
    """A cluster's API."""

    async def send(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Reply:
        """One request, its body JSON. Raises what its implementation says where there is no answer."""
        ...


async def uid_of(api: Api) -> str:
    """:raises JoinFailed: it cannot be read."""
    reply = await api.send("GET", "/api/v1/namespaces/kube-system")
    uid = (reply.body.get("metadata") or {}).get("uid")
    if reply.status != 200 or not isinstance(uid, str) or not uid:
        raise JoinFailed(f"the cluster's id, the UID of its namespace kube-system, cannot be read: {reply.message}")
    return uid


async def is_constrained(api: Api) -> bool:
    """Whether the cluster has constrained impersonation, by its version."""
    body = (await api.send("GET", "/version")).body
    numbers = [re.match(r"\d{1,4}", str(body.get(part, ""))) for part in ("major", "minor")]
    major, minor = (int(found[0]) if found else 0 for found in numbers)
    return (major, minor) >= CONSTRAINED


async def apply(api: Api, objects: list[Object], *, dry_run: bool = False) -> int:
    """Server-side apply of all, in their order; says how many. A trial passes over what needs the namespace, where
    that is not there yet.

    :raises JoinFailed: the cluster refuses one.
    """
    query = f"?fieldManager={MANAGER}&force=true" + ("&dryRun=All" if dry_run else "")
    count = 0
    for one in objects:
        reply = await api.send("PATCH", path_of(one) + query, one, APPLY)
        if dry_run and reply.status == 404 and "namespace" in one["metadata"]:
            continue
        if reply.status not in (200, 201):
            raise JoinFailed(f"the cluster refuses {one['kind']} {one['metadata']['name']}: {reply.message}")
        count += 1
    return count
