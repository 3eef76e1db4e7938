"""Control messages: JSON objects with a `kind`, read strictly and with limits (docs/protocol.md, 3 and 9)."""

from __future__ import annotations

import json
from typing import Any

from tunnel.errors import ProtocolError

Message = dict[str, Any]


def encode_message(kind: str, **fields: Any) -> bytes:
    """The payload of a CONTROL frame; fields that are None are left out."""
    return json.dumps({"kind": kind} | {k: v for k, v in fields.items() if v is not None}).encode()


def parse_message(payload: bytes, limit: int) -> Message:
    """A control message. Raises ProtocolError where it is too long, no JSON object, or has no kind."""
    if len(payload) > limit:
        raise ProtocolError(f"a control message of {len(payload)} bytes, more than {limit}")
    try:
        message = json.loads(payload.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a control message that is no JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise ProtocolError("a control message without a kind")
    return message


def _once(pairs: list[tuple[str, Any]]) -> Message:
    """An object whose fields are there once: two parsers must not read two messages out of one."""
    message = dict(pairs)
    if len(message) != len(pairs):
        raise ValueError("a field is repeated")
    return message


def text(message: Message, name: str, limit: int = 253, default: str | None = None) -> str:
    """A string field. Raises ProtocolError where it is missing, too long or not printable."""
    value = message.get(name, default)
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise ProtocolError(f"{message['kind']}: {name} is missing or malformed")
    return value


def block(message: Message, name: str, limit: int, default: str | None = None) -> str:
    """A field of several lines, as PEM is: ASCII without controls but for line ends. Raises ProtocolError otherwise."""
    value = message.get(name, default)
    if not isinstance(value, str) or len(value) > limit or not value.isascii():
        raise ProtocolError(f"{message['kind']}: {name} is missing or malformed")
    if not value.replace("\n", "").isprintable():
        raise ProtocolError(f"{message['kind']}: {name} is malformed")
    return value


def printable(words: str) -> str:
    """A peer's words for people to read: no control characters, line ends or changes of direction among them."""
    return words if words.isprintable() else "".join([one if one.isprintable() else " " for one in words])


def number(message: Message, name: str, low: int = 0, high: int = 2**63 - 1, default: int | None = None) -> int:
    """An integer field within bounds. Raises ProtocolError otherwise."""
    value = message.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ProtocolError(f"{message['kind']}: {name} is missing or out of bounds")
    return value
