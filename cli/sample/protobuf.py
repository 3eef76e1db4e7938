"""Request bodies in Kubernetes' protobuf, for the few kinds that kubectl's own commands send that way.

client-go's typed clients write protobuf and do not fall back to JSON, so without this `kubectl create configmap` and
`kubectl auth whoami` would fail with a 415. Answers are JSON always, which those clients accept.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from cli.sample.document import Obj
from cli.sample.protoschema import KINDS, MESSAGES, Field
from cli.sample.status import ApiError, bad_request

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_DEPTH = 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def decode(data: bytes) -> Obj:
    """The object in an envelope (runtime.Unknown), with apiVersion and kind as JSON would have them."""
    if not data.startswith(_MAGIC):
        raise bad_request("the body of the request is no Kubernetes protobuf")
    try:
        envelope = _message(data[len(_MAGIC) :], "Unknown", 0)
        meta = envelope.get("typeMeta", {})
        if meta.get("kind") not in KINDS:
            raise _unknown(meta.get("kind", "object without a kind"))
        raw = base64.b64decode(envelope.get("raw", ""))
        return Obj(meta | _message(raw, meta["kind"], 0))
    except (IndexError, ValueError, OverflowError, TypeError, AttributeError) as error:
        raise bad_request(f"the body of the request cannot be decoded: {error}") from error


def _unknown(kind: str) -> ApiError:
    message = f"the Kulvert sample API server does not read {kind} as protobuf: send application/json"
    return ApiError(415, "UnsupportedMediaType", message)


def _message(data: bytes, name: str, depth: int) -> Obj:
    """Empty values are left out, as `omitempty` does in JSON."""
    if depth > _DEPTH:
        raise ValueError("nested too deeply")
    schema, result = MESSAGES[name], Obj()
    for number, wire in _fields(data):
        if number in schema:
            _store(result, schema[number], wire, depth)
    return result


def _store(result: Obj, field: Field, wire: int | bytes, depth: int) -> None:
    if field.mapped:
        entry = _entry(wire, field.type, depth)
        result.setdefault(field.name, {})[entry[0]] = entry[1]
        return
    value = _value(wire, field.type, depth)
    if field.repeated:
        result.setdefault(field.name, []).append(value)
    elif value not in ("", 0, {}, None):
        result[field.name] = value


def _entry(wire: int | bytes, kind: str, depth: int) -> tuple[str, Any]:
    parts = dict(_fields(_octets(wire)))
    return _octets(parts.get(1, b"")).decode(), _value(parts.get(2, b""), kind, depth)


def _value(wire: int | bytes, kind: str, depth: int) -> Any:
    if kind == "int":
        return _number(wire)
    if kind == "bool":
        return bool(_number(wire))
    if kind == "string":
        return _octets(wire).decode()
    if kind == "bytes":
        return base64.b64encode(_octets(wire)).decode()
    inner = _message(_octets(wire), kind, depth + 1)
    if kind == "Time":
        return _time(inner)
    return _int_or_string(inner) if kind == "IntOrString" else inner


def _time(parts: Obj) -> str | None:
    if not parts:
        return None
    at = datetime.fromtimestamp(parts.get("seconds", 0), UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S") + f".{parts.get('nanos', 0) // 1000:06d}Z"


def _int_or_string(parts: Obj) -> int | str:
    return str(parts.get("strVal", "")) if parts.get("type") else int(parts.get("intVal", 0))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their undecoded values. IndexError where the data ends too early."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        length, position = _length(data, position, wire_type)
        if position + length > len(data):
            raise IndexError("the message is cut short")
        yield number, data[position : position + length]
        position += length


def _length(data: bytes, position: int, wire_type: int) -> tuple[int, int]:
    if wire_type == _BYTES:
        return _varint(data, position)
    if wire_type in (_FIXED32, _FIXED64):
        return (4 if wire_type == _FIXED32 else 8), position
    raise ValueError(f"wire type {wire_type}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value - (1 << 64) if value >= 1 << 63 else value, position
        shift += 7
    raise ValueError("a number that does not end")


def _number(wire: int | bytes) -> int:
    if not isinstance(wire, int):
        raise TypeError("bytes where a number is expected")
    return wire


def _octets(wire: int | bytes) -> bytes:
    if not isinstance(wire, bytes):
        raise TypeError("a number where bytes are expected")
    return wire
