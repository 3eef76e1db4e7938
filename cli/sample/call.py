"""One request, understood: who asks, for what, and the raw request for its body and streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from cli.sample.attributes import Attributes
from cli.sample.callers import Caller
from cli.sample.status import bad_request

_TRUE = ("1", "true")
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Call:
    request: web.BaseRequest
    asked: Attributes
    caller: Caller

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.rel_url.query

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in _TRUE

    def values(self, name: str) -> list[str]:
        return list(self.request.rel_url.query.getall(name, ()))

    def number(self, name: str) -> int | None:
        """A query parameter that is a number, or None where it is absent."""
        text = self.query.get(name, "")
        if not text:
            return None
        if not text.isascii() or not text.isdigit():
            raise bad_request(f'{name}: Invalid value: "{text}"')
        return int(text)

    @property
    def dry_run(self) -> bool:
        return self.query.get("dryRun", "") == "All"


def answer(body: bytes, code: int = 200) -> web.Response:
    return web.Response(body=body, status=code, headers=_JSON)
