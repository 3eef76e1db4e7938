"""Request bodies, read up to a limit and decoded.

The limit is kube-apiserver's: 3 MiB for an object. A larger body is refused as soon as that is known, from
its declared length if it has one, and never held.
"""

from __future__ import annotations

from typing import Any

import orjson
import yaml
from aiohttp import web

from cli.sample import protobuf
from cli.sample.document import Obj, loads
from cli.sample.status import bad_request, too_large, unsupported_media_type

LIMIT = 3 * 1024 * 1024
_JSON = "application/json"
_YAML = ("application/yaml", "application/x-yaml")


async def read(request: web.BaseRequest, limit: int = LIMIT) -> bytes:
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    await _continue(request)
    chunks, size = [], 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


async def document(request: web.BaseRequest) -> Obj:
    """The object in the body, whichever of the three encodings it is in."""
    value = decode(await read(request), content_type(request))
    if not isinstance(value, dict):
        raise bad_request("the body of the request must be an object")
    return value


async def options(request: web.BaseRequest) -> Obj:
    """DeleteOptions, which may be left out altogether."""
    data = await read(request)
    value = decode(data, content_type(request)) if data else {}
    return value if isinstance(value, dict) else {}


def content_type(request: web.BaseRequest) -> str:
    return request.content_type if "Content-Type" in request.headers else _JSON


def decode(data: bytes, media_type: str) -> Any:
    if media_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(data)
    if media_type not in (_JSON, *_YAML):
        raise unsupported_media_type(", ".join((_JSON, *_YAML, protobuf.MEDIA_TYPE)))
    return parse_yaml(data) if media_type in _YAML else parse_json(data)


def parse_json(data: bytes) -> Any:
    try:
        return loads(data)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body of the request is no JSON: {error}") from error


def parse_yaml(data: bytes) -> Any:
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise bad_request(f"the body of the request is no YAML: {error}") from error


async def _continue(request: web.BaseRequest) -> None:
    """A client that waits for leave to send its body gets it here, where the body is wanted."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is no part of the answer, which may still be an error
