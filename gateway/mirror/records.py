"""Documents as Secrets of the hub: one each, of a type of their own, found by labels."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gateway.hub.objects import HubObjects, HubUnavailable, HubUnreachable, secret_path
from gateway.hub.source import Source

TYPE: Final = "kulvert.dev/record"
DATA: Final = "row"
OWNER: Final = "app.kubernetes.io/managed-by"
KULVERT: Final = "kulvert"
INSTALLATION: Final = "kulvert.dev/installation"
TABLE: Final = "kulvert.dev/table"


class RecordConflict(Exception):
    """Somebody else made, changed or deleted it: look again."""


class RecordsUnavailable(Exception):
    """Records cannot be read or written just now; the text says why, and holds no secret. `unsure`: what was asked for
    may have been done.
    """

    def __init__(self, message: str, *, unsure: bool = False) -> None:
        super().__init__(message)
        self.unsure = unsure


@dataclass(frozen=True, slots=True)
class Record:
    """A Secret, as far as it counts. `version` is its resourceVersion, a decimal number that rises."""

    name: str
    version: str
    content: bytes = field(repr=False)


class Records(Protocol):
    """Where records are kept: the hub's API, or a test's memory. All methods raise RecordsUnavailable."""

    async def get(self, name: str) -> Record | None:
        """What is there at this very moment."""
        ...

    async def create(self, name: str, table: str, content: bytes) -> str:
        """Gives its version. Raises RecordConflict."""
        ...

    async def replace(self, name: str, table: str, content: bytes, version: str) -> str:
        """That very version of it; gives the new one. Raises RecordConflict."""
        ...

    async def delete(self, name: str, version: str) -> None:
        """That very version of it. Raises RecordConflict, also where it is gone."""
        ...


def view(item: Mapping[str, Any]) -> Record | None:
    """Of a Secret, for an informer; None for one that is no record. Raises ValueError, KeyError: it is malformed."""
    if item.get("type") != TYPE:
        return None
    metadata = item["metadata"]
    version = str(metadata["resourceVersion"])
    if not version.isdecimal():
        raise ValueError("its resourceVersion is no number")
    return Record(metadata["name"], version, base64.b64decode(item["data"][DATA], validate=True))


class SecretRecords:
    """`Records` in one namespace of the hub, of one installation."""

    def __init__(self, hub: HubObjects, namespace: str, installation: str) -> None:
        self._hub = hub
        self._namespace = namespace
        self._installation = installation

    @property
    def source(self) -> Source:
        """For an informer with `view`."""
        selector = f"{OWNER}={KULVERT},{INSTALLATION}={self._installation},{TABLE}"
        return Source(secret_path(self._namespace), selector)

    async def get(self, name: str) -> Record | None:
        """See `Records`."""
        answer = await self._ask("GET", name)
        if answer is None:
            return None
        try:
            found = view(answer)
        except (ValueError, KeyError, TypeError, binascii.Error):
            found = None
        if found is None:
            raise RecordsUnavailable(f"Secret {self._namespace}/{name} is malformed: delete it, or mend it")
        return found

    async def create(self, name: str, table: str, content: bytes) -> str:
        """See `Records`."""
        return _version(await self._ask("POST", name, self._secret(name, table, content)))

    async def replace(self, name: str, table: str, content: bytes, version: str) -> str:
        """See `Records`."""
        return _version(await self._ask("PUT", name, self._secret(name, table, content, version)))

    async def delete(self, name: str, version: str) -> None:
        """See `Records`."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": version}}
        await self._ask("DELETE", name, options)

    async def _ask(self, method: str, name: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        """None: there is none, to a GET."""
        path = secret_path(self._namespace, "" if method == "POST" else name)
        try:
            answer = await self._hub.ask(method, path, body)
        except HubUnreachable as error:
            raise RecordsUnavailable(str(error)) from None
        except HubUnavailable as error:
            raise RecordsUnavailable(str(error), unsure=True) from None
        if answer.status in (200, 201, 202):
            return answer.body
        if answer.status == 404 and method == "GET":
            return None
        if answer.status == 409 or (answer.status == 404 and method in ("PUT", "DELETE")):
            raise RecordConflict
        refused = answer.refused(f"{method} Secret {self._namespace}/{name}")
        raise RecordsUnavailable(str(refused), unsure=answer.status >= 500)

    def _secret(self, name: str, table: str, content: bytes, version: str = "") -> Mapping[str, Any]:
        labels = {OWNER: KULVERT, INSTALLATION: self._installation, TABLE: table}
        metadata: dict[str, Any] = {"name": name, "namespace": self._namespace, "labels": labels}
        if version:
            metadata["resourceVersion"] = version
        data = {DATA: base64.b64encode(content).decode()}
        return {"apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": metadata, "data": data}


def _version(answer: Mapping[str, Any] | None) -> str:
    version = str(((answer or {}).get("metadata") or {}).get("resourceVersion", ""))
    if not version.isdecimal():
        raise RecordsUnavailable("the hub's answer has no version", unsure=True)
    return version
