"""The hub: the Kubernetes cluster whose API the server asks about tokens and access, and whose grants it reads.

Everything here is at the edge: it fetches, and decides nothing. No request waits longer than `PATIENCE` for one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.config import ConfigException

from auth.authenticator import AuthenticationUnavailable
from auth.oidc.jwksfetch import MAX_BYTES
from gateway.bounded import read_whole
from gateway.hub.settings import HubSettings

PATIENCE: Final = 4.0
"""Seconds for one question: less than a request waits for a decision (`gateway.settling`)."""


class HubError(Exception):
    """The hub cannot be used as it is configured; the text says why and what to do."""


class Hub:
    """A client of the hub's API. An asynchronous context."""

    def __init__(self, settings: HubSettings) -> None:
        self._settings = settings
        self.api: client.ApiClient

    async def __aenter__(self) -> Self:
        self.api = client.ApiClient(await _configuration(self._settings))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.api.close()

    async def issuers(self) -> frozenset[str]:
        """The issuers of its service accounts' tokens. Raises AuthenticationUnavailable."""
        document = await self._raw("/.well-known/openid-configuration")
        issuer = document.get("issuer")
        if not isinstance(issuer, str) or not issuer:
            raise AuthenticationUnavailable("the hub's OIDC discovery names no issuer")
        return frozenset({issuer})

    async def key_set(self) -> bytes:
        """The public keys of its service accounts' tokens: a JWKS document. Raises AuthenticationUnavailable."""
        path = "/openid/v1/jwks"
        async with _patiently("GET", path):
            answer = await self.api.call_api(
                path,
                "GET",
                header_params={"Accept": "application/jwk-set+json"},  # it gives no other type
                auth_settings=["BearerToken"],
                _preload_content=False,  # as it was sent: the reader is stricter than the library's
                _return_http_data_only=True,
            )
            assert isinstance(answer, aiohttp.ClientResponse)
            async with answer:
                if answer.status != HTTPStatus.OK:
                    raise AuthenticationUnavailable(f"the hub answers {answer.status} to GET {path}")
                body = await read_whole(answer.content, MAX_BYTES)
                if body is None:
                    raise AuthenticationUnavailable(f"the hub's key set is larger than {MAX_BYTES} bytes")
                return body

    async def review_token(self, token: str) -> Mapping[str, Any]:
        """The status of a TokenReview. Raises AuthenticationUnavailable."""
        spec = {"token": token, "audiences": list(self._settings.audiences)}
        review = await self._create("/apis/authentication.k8s.io/v1/tokenreviews", "TokenReview", spec)
        status = review.get("status")
        return status if isinstance(status, dict) else {}

    async def review_access(self, spec: Mapping[str, Any]) -> tuple[bool, str]:
        """(allowed, reason) of a SubjectAccessReview. Raises AuthenticationUnavailable."""
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        review = await self._create(path, "SubjectAccessReview", spec)
        status = review.get("status")
        status = status if isinstance(status, dict) else {}
        return status.get("allowed") is True and status.get("denied") is not True, str(status.get("reason") or "")

    async def _create(self, path: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        group = path.removeprefix("/apis/").rpartition("/")[0]
        return await self._asked(path, "POST", {"apiVersion": group, "kind": kind, "spec": dict(spec)})

    async def _raw(self, path: str) -> dict[str, Any]:
        return await self._asked(path, "GET", None)

    async def _asked(self, path: str, method: str, body: Any) -> dict[str, Any]:
        """What failed is told without the body of either side: there are tokens in it."""
        async with _patiently(method, path):
            answer = await self.api.call_api(
                path,
                method,
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
                response_types_map={200: "object", 201: "object"},
                _return_http_data_only=True,
            )
        return answer if isinstance(answer, dict) else {}


@asynccontextmanager
async def _patiently(method: str, path: str) -> AsyncIterator[None]:
    """Bounds one question; whatever it fails of is AuthenticationUnavailable."""
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except ApiException as error:
        raise AuthenticationUnavailable(f"the hub answers {error.status} to {method} {path}") from None
    except TimeoutError:
        raise AuthenticationUnavailable("the hub does not answer") from None
    except (aiohttp.ClientError, OSError) as error:
        raise AuthenticationUnavailable(f"the hub cannot be reached ({type(error).__name__})") from None


async def _configuration(settings: HubSettings) -> client.Configuration:
    found = client.Configuration()
    if settings.kubeconfig is not None and not settings.kubeconfig.is_file():
        raise HubError(f"hub.kubeconfig, {settings.kubeconfig}: there is no such file")
    try:
        if settings.kubeconfig is not None:
            await config.load_kube_config(str(settings.kubeconfig), client_configuration=found, persist_config=False)
        else:
            config.load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]  # the library
    except (ConfigException, OSError) as error:
        raise HubError(f"the hub's configuration cannot be used: {error}") from None
    found.retries = 0
    return found
