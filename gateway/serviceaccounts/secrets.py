"""Tokens of managed service accounts in Secrets of the hub, for holders that are at home there.

A Secret that Kulvert did not make for this very account is neither overwritten nor deleted. The server may write only
where the setting and a role let it (charts/server-hub-secrets-rbac.yaml).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Collection, Mapping
from typing import Any, Final

from gateway.hub.objects import Answer, HubObjects, HubUnavailable, secret_path
from gateway.serviceaccounts.files import Projection, ProjectionError
from gateway.serviceaccounts.store import Key, Wanted

OWNER: Final = "app.kubernetes.io/managed-by"
CLUSTER: Final = "kulvert.dev/cluster"
ACCOUNT: Final = "kulvert.dev/managed-serviceaccount"
HOLDER: Final = "kulvert.dev/holder"
KULVERT: Final = "kulvert"
TRIES: Final = 3
LOOK: Final = 60.0
"""Seconds between two looks at all of them."""


class SecretProjection:
    """Implements `Projection`. `run` sees which Secrets others have deleted."""

    def __init__(self, hub: HubObjects, namespaces: Collection[str], look: float = LOOK) -> None:
        self._hub = hub
        self._namespaces = frozenset(namespaces)
        self._look = look
        self._asked: dict[Key, Wanted] = {}
        self._missing: set[Key] = set()

    async def write(self, wanted: Wanted, token: str, issued: float) -> None:
        """See `Projection`."""
        namespace, name = self._where(wanted)
        for _ in range(TRIES):
            found = await self._found(namespace, name)
            answer = await self._put(_secret(wanted, namespace, name, token), found, wanted)
            if answer.status in (200, 201):
                self._asked[wanted.key] = wanted
                self._missing.discard(wanted.key)
                return
            if answer.status != 409:
                raise ProjectionError(_told(answer.refused(f"Secret {wanted.secret} cannot be written"), answer))
        raise ProjectionError(f"Secret {wanted.secret} is changed by others all the time")

    async def remove(self, wanted: Wanted) -> None:
        """See `Projection`. One that is not ours stays, and what the server may not even see is not there for it."""
        self._asked.pop(wanted.key, None)
        namespace, name = self._where(wanted, anyway=True)
        for _ in range(TRIES):
            found = await self._found(namespace, name, unseen=namespace not in self._namespaces)
            if found is None or not _is_ours(found, wanted):
                return
            try:
                if await self._hub.delete(secret_path(namespace, name), found):
                    return
            except HubUnavailable as error:
                raise ProjectionError(f"Secret {wanted.secret} cannot be deleted: {error}") from None
        raise ProjectionError(f"Secret {wanted.secret} is changed by others all the time")

    def present(self, wanted: Wanted, issued: float) -> bool:
        """See `Projection`: as `run` has last seen it; one that it has not seen yet counts as there. All leaders share
        one Secret, so what is in it is the newest.
        """
        self._asked[wanted.key] = wanted
        return wanted.key not in self._missing

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._look)
            await self.look()

    async def look(self) -> None:
        """At all that somebody asked for. What the hub does not tell stays as it was."""
        for wanted in list(self._asked.values()):
            try:
                found = await self._found(*self._where(wanted))
            except ProjectionError:
                continue
            if found is not None and _is_ours(found, wanted) and "token" in (found.get("data") or {}):
                self._missing.discard(wanted.key)
            else:
                self._missing.add(wanted.key)

    def _where(self, wanted: Wanted, *, anyway: bool = False) -> tuple[str, str]:
        namespace, _, name = wanted.secret.partition("/")
        if not anyway and namespace not in self._namespaces:
            raise ProjectionError(
                f"Secrets in namespace {namespace} are not for tokens: add it to serviceAccounts.secretNamespaces"
            )
        return namespace, name

    async def _found(self, namespace: str, name: str, *, unseen: bool = False) -> Mapping[str, Any] | None:
        try:
            answer = await self._hub.ask("GET", secret_path(namespace, name))
        except HubUnavailable as error:
            raise ProjectionError(str(error)) from None
        if answer.status == 404 or (unseen and answer.status == 403):
            return None
        if answer.status != 200:
            raise ProjectionError(_told(answer.refused(f"Secret {namespace}/{name} cannot be read"), answer))
        return answer.body

    async def _put(self, made: dict[str, Any], found: Mapping[str, Any] | None, wanted: Wanted) -> Answer:
        namespace, name = self._where(wanted)
        try:
            if found is None:
                return await self._hub.ask("POST", secret_path(namespace), made)
            if not _is_ours(found, wanted):
                raise ProjectionError(
                    f"Secret {wanted.secret} is not Kulvert's for this account: delete it, or name another"
                )
            made["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            return await self._hub.ask("PUT", secret_path(namespace, name), made)
        except HubUnavailable as error:
            raise ProjectionError(str(error)) from None


class Projections:
    """Implements `Projection`: files and, where there is a hub, Secrets."""

    def __init__(self, files: Projection, secrets: Projection | None) -> None:
        self._files = files
        self._secrets = secrets

    async def write(self, wanted: Wanted, token: str, issued: float) -> None:
        """See `Projection`."""
        await self._of(wanted).write(wanted, token, issued)

    async def remove(self, wanted: Wanted) -> None:
        """See `Projection`."""
        await self._of(wanted).remove(wanted)

    def present(self, wanted: Wanted, issued: float) -> bool:
        """See `Projection`."""
        return self._of(wanted).present(wanted, issued)

    def _of(self, wanted: Wanted) -> Projection:
        if wanted.file:
            return self._files
        if self._secrets is None:
            raise ProjectionError("a Secret needs a hub (hub.kubeconfig or hub.inCluster): this server has none")
        return self._secrets


def _secret(wanted: Wanted, namespace: str, name: str, token: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {OWNER: KULVERT, CLUSTER: wanted.cluster},
            "annotations": {ACCOUNT: _account(wanted), HOLDER: wanted.holder},
        },
        "type": "Opaque",
        "data": {"token": base64.b64encode(token.encode("ascii")).decode()},
    }


def _is_ours(found: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether Kulvert made it, for this account."""
    metadata = found.get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    is_kulverts = labels.get(OWNER) == KULVERT and labels.get(CLUSTER) == wanted.cluster
    return is_kulverts and annotations.get(ACCOUNT) == _account(wanted)


def _account(wanted: Wanted) -> str:
    return f"{wanted.namespace}/{wanted.name}"


def _told(error: HubUnavailable, answer: Answer) -> str:
    what = "; a role must let the server (charts/server-hub-secrets-rbac.yaml)" if answer.status == 403 else ""
    return f"{error}{what}"
