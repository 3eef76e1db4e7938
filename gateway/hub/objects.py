"""Single objects of the hub: read, made, replaced, deleted; by paths, as Kubernetes has them.

Nothing of a body is ever in an error: there are tokens and kubeconfigs in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from kubernetes_asyncio import client

from gateway.bounded import json_object, read_whole

PATIENCE: Final = 10.0
"""Seconds for one answer."""
MOST: Final = 4 * 1024 * 1024
JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
"""Server-side apply; JSON is YAML. Paths of such questions name a fieldManager."""


class HubUnavailable(Exception):
    """The hub cannot be reached, or does not do what it was asked; the text says which, and holds no secret."""


class HubUnreachable(HubUnavailable):
    """There was no connection to it, so it was not asked at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, and an object: the one that was asked for, or a Status."""

    status: int
    body: Mapping[str, Any] = field(repr=False)

    def refused(self, what: str) -> HubUnavailable:
        """As an exception: `what` is what was to be done."""
        reason = str(self.body.get("reason") or "")[:64]
        return HubUnavailable(f"{what}: the hub answers {self.status}{f' ({reason})' if reason else ''}")


class HubObjects:
    """Asks with the server's own credential."""

    def __init__(self, api: client.ApiClient, patience: float = PATIENCE) -> None:
        self._api = api
        self._patience = patience

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = JSON) -> Answer:
        """One question; answers of all statuses come back. Raises HubUnavailable."""
        try:
            async with asyncio.timeout(self._patience):
                response = await self._api.call_api(
                    path,
                    method,
                    header_params={"Accept": JSON, "Content-Type": content},
                    body=body,
                    auth_settings=["BearerToken"],
                    _preload_content=False,  # the library would log what it loads
                    _return_http_data_only=True,
                )
                assert isinstance(response, aiohttp.ClientResponse)
                async with response:
                    return await _answer(response)
        except HubUnavailable:
            raise
        except TimeoutError:
            raise HubUnavailable("the hub does not answer") from None
        except aiohttp.ClientConnectorError as error:
            raise HubUnreachable(f"the hub cannot be reached ({type(error).__name__})") from None
        except (aiohttp.ClientError, OSError) as error:
            raise HubUnavailable(f"the hub cannot be reached ({type(error).__name__})") from None
        except Exception as error:  # the library's: of a credential that is just written anew, for one
            raise HubUnavailable(f"the hub cannot be asked ({type(error).__name__})") from None

    async def get(self, path: str) -> Mapping[str, Any] | None:
        """An object, or None where there is none. Raises HubUnavailable."""
        answer = await self.ask("GET", path)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise answer.refused(f"GET {path}")
        return answer.body

    async def delete(self, path: str, found: Mapping[str, Any]) -> bool:
        """Delete this very object, unless it has changed (False). Raises HubUnavailable."""
        metadata = found["metadata"]
        exact = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": exact}
        answer = await self.ask("DELETE", path, options)
        if answer.status not in (200, 202, 404, 409):
            raise answer.refused(f"DELETE {path}")
        return answer.status != 409


def secret_path(namespace: str, name: str = "") -> str:
    """A Secret, or all of a namespace's."""
    base = f"/api/v1/namespaces/{quote(namespace, safe='')}/secrets"
    return f"{base}/{quote(name, safe='')}" if name else base


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    """A refusal need be no object: an API that is not there is said in plain text."""
    body = await read_whole(response.content, MOST)
    if body is None:
        raise HubUnavailable("the hub's answer is too long")
    found = json_object(body)
    if found is None and response.ok:
        raise HubUnavailable("the hub's answer is no JSON object")
    return Answer(response.status, found or {})
