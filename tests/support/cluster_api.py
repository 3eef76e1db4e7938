"""A few requests to an API server, as its administrator: no kubectl to start, no client library to trust.

The tests' own set-up must not depend on what they test, hence http.client in a thread and nothing more.
"""

import asyncio
import http.client
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Object = dict[str, Any]
T = TypeVar("T")


class ApiError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """One request per connection: the server's restarts need no care then."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context

    async def get(self, path: str) -> Object:
        """The object at path."""
        return await self.request("GET", path)

    async def create(self, path: str, obj: Object) -> Object:
        """Posts an object; what is there already stays as it is."""
        try:
            return await self.request("POST", path, obj)
        except ApiError as error:
            if error.status != http.HTTPStatus.CONFLICT:
                raise
            return await self.get(f"{path}/{obj['metadata']['name']}")

    async def request(self, method: str, path: str, body: Object | None = None) -> Object:
        """Sends one request; answers that are not JSON come back as {}."""
        return await asyncio.to_thread(self._request, method, path, body)

    async def ready(self) -> bool:
        """Whether the server says that all of it is up."""
        try:
            await self.get("/readyz")
        except (OSError, http.client.HTTPException, ApiError):
            return False
        return True

    def _request(self, method: str, path: str, body: Object | None) -> Object:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context, timeout=10)
        try:
            content = json.dumps(body) if body is not None else None
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(answer.status, text)
        found: Object = json.loads(text) if text.startswith("{") else {}
        return found


async def until(question: Callable[[], Awaitable[T]], what: str, timeout: float = 20) -> T:
    """Asks until the answer is a true one; its failures with 404 count as a no."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if answer := await question():
                return answer
        except ApiError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:.0f} s for {what}")
        await asyncio.sleep(0.05)
