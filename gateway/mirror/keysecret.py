"""The one Secret of the hub with the keys that all replicas share."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from gateway.hub.objects import HubObjects, HubUnavailable, secret_path
from gateway.hub.source import Source
from gateway.mirror import marker
from gateway.mirror.keys import Files, SharedKeys
from gateway.mirror.records import INSTALLATION, KULVERT, OWNER, RecordConflict, RecordsUnavailable

TYPE: Final = "kulvert.dev/keys"


def view(item: Mapping[str, Any]) -> SharedKeys | None:
    """Of a Secret, for an informer; None for another one. Raises ValueError, KeyError: it is malformed."""
    if item.get("type") != TYPE:
        return None
    version = str(item["metadata"]["resourceVersion"])
    if not version.isdecimal():
        raise ValueError("its resourceVersion is no number")
    data = item.get("data") or {}
    return SharedKeys(version, {name: base64.b64decode(value, validate=True) for name, value in data.items()})


class KeySecret:
    """Implements `gateway.mirror.keys.KeyStore` in a namespace of the hub."""

    def __init__(self, hub: HubObjects, namespace: str, installation: str) -> None:
        self._hub = hub
        self._namespace = namespace
        self._installation = installation
        self.name = f"{installation}-keys"

    @property
    def source(self) -> Source:
        """For an informer with `view`."""
        return Source(secret_path(self._namespace), field_selector=f"metadata.name={self.name}")

    async def get(self) -> SharedKeys | None:
        """See `KeyStore`."""
        try:
            found = await self._hub.get(secret_path(self._namespace, self.name))
        except HubUnavailable as error:
            raise RecordsUnavailable(str(error)) from None
        return None if found is None else self._seen(found)

    async def create(self, files: Files) -> SharedKeys:
        """See `KeyStore`."""
        return await self._put("POST", files)

    async def begun(self) -> str:
        """See `KeyStore`: the stores have a mark there from the first start on."""
        name = marker.name_of(self._installation)
        try:
            found = await self._hub.get(secret_path(self._namespace, name))
        except HubUnavailable as error:
            raise RecordsUnavailable(str(error)) from None
        return f"Secret {self._namespace}/{name}" if found is not None else ""

    async def replace(self, before: SharedKeys, files: Files) -> SharedKeys:
        """See `KeyStore`. What a later Kulvert keeps there stays."""
        return await self._put("PUT", {**before.files, **files}, before.version)

    async def _put(self, method: str, files: Files, version: str = "") -> SharedKeys:
        labels = {OWNER: KULVERT, INSTALLATION: self._installation}
        metadata: dict[str, Any] = {"name": self.name, "namespace": self._namespace, "labels": labels}
        if version:
            metadata["resourceVersion"] = version
        data = {name: base64.b64encode(content).decode() for name, content in files.items()}
        body = {"apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": metadata, "data": data}
        try:
            answer = await self._hub.ask(method, secret_path(self._namespace, self.name if version else ""), body)
        except HubUnavailable as error:
            raise RecordsUnavailable(str(error), unsure=True) from None
        if answer.status == 409 or (version and answer.status == 404):
            raise RecordConflict
        if answer.status not in (200, 201):
            raise RecordsUnavailable(str(answer.refused(f"{method} Secret {self._namespace}/{self.name}")))
        return self._seen(answer.body)

    def _seen(self, found: Mapping[str, Any]) -> SharedKeys:
        try:
            seen = view(found)
        except (ValueError, KeyError, TypeError):
            seen = None
        if seen is None:
            raise RecordsUnavailable(f"Secret {self._namespace}/{self.name} is not of type {TYPE}, or malformed")
        return seen
