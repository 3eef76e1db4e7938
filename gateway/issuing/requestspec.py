"""The body of a request for a credential: a Kubernetes-like object, read strictly. What is not known is refused, since
its sender believes that it does something.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from gateway import status
from gateway.bounded import read_whole
from gateway.failures import Refused
from gateway.management import API_VERSION

LEAST_SECONDS: Final = 600
"""As in Kubernetes' TokenRequest."""
_MOST_SECONDS: Final = 1 << 32
_MAX_BYTES: Final = 32_768
_OBJECT: Final = frozenset(("apiVersion", "kind", "metadata", "spec", "status"))


async def read_spec(request: web.Request, kind: str, known: Collection[str]) -> Mapping[str, Any]:
    """The object's spec. :raises Refused: the body is no such object, or too large."""
    body = await _body(request)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _bad("the body is no JSON") from None
    if not isinstance(document, dict) or (document.get("apiVersion"), document.get("kind")) != (API_VERSION, kind):
        raise _bad(f"send an object of apiVersion {API_VERSION} and kind {kind}")
    _check_fields(document, _OBJECT, "")
    spec = document.get("spec", {})
    if not isinstance(spec, dict):
        raise _bad("spec is no object")
    _check_fields(spec, known, "spec.")
    return spec


def seconds_of(spec: Mapping[str, Any], default: float) -> float:
    """`spec.expirationSeconds`. :raises Refused: it is no number of seconds, or too small."""
    value = spec.get("expirationSeconds")
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not LEAST_SECONDS <= value < _MOST_SECONDS:
        raise _bad(f"spec.expirationSeconds is a whole number of seconds, {LEAST_SECONDS} at least")
    return float(value)


async def _body(request: web.Request) -> bytes:
    """Of a type that no page of somebody else's can make a browser send, with its user's certificate, unasked."""
    if request.content_type != "application/json":
        raise _bad("send Content-Type: application/json")
    if (body := await read_whole(request.content, _MAX_BYTES)) is None:
        raise Refused(status.TOO_LARGE, f"a request for a credential has {_MAX_BYTES} bytes at most")
    return body


def _check_fields(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise _bad(f"there is no field {where}{unknown[0][:64]}")


def _bad(reason: str) -> Refused:
    return Refused(status.BAD_REQUEST, reason)
