"""What reached the API server, for tests to look at: the last few requests, with secrets blanked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web

_SECRET = ("authorization", "cookie", "proxy-authorization")
_BLANK = "***"
_BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."


@dataclass(frozen=True, slots=True)
class Logged:
    """`path` is as it was sent, query included; `headers` in order, repeated ones repeated."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class RequestLog:
    def __init__(self, limit: int) -> None:
        self._entries: deque[Logged] = deque(maxlen=limit)

    def add(self, request: web.BaseRequest) -> None:
        headers = tuple((key, _blanked(key, value)) for key, value in request.headers.items())
        self._entries.append(Logged(request.method, request.raw_path, headers))

    def __iter__(self) -> Iterator[Logged]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        self._entries.clear()


def _blanked(name: str, value: str) -> str:
    """The scheme stays, so that a test can see *that* there was a token; it may be in a subprotocol too."""
    if name.lower() in _SECRET:
        scheme, space, _ = value.partition(" ")
        return f"{scheme} {_BLANK}" if space else _BLANK
    if _BEARER_PROTOCOL in value:
        return ", ".join(_BLANK if _BEARER_PROTOCOL in part else part for part in value.split(", "))
    return value
