"""Who asks, as one replica tells another that serves the request in its place.

The other replica believes it, since nobody else can open a peer link; the header exists between replicas alone, and
what a client sends by its name never gets there (`end_to_end` heads are built anew).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import orjson

from auth.identity import BadIdentity, Identity
from gateway.handover import Caller
from tunnel.errors import HeadError

HEADER: Final = b"kulvert-caller"
_TEXTS: Final = ("user", "uid", "source", "credential_id", "cluster")


def encode(caller: Caller) -> bytes:
    """The header's value: base64 of JSON, for names may be in any script."""
    said: dict[str, Any] = {"address": caller.address, "audit_id": caller.audit_id}
    if (one := caller.identity) is not None:
        said["identity"] = {name: getattr(one, name) for name in _TEXTS} | {
            "groups": one.groups,
            "extra": one.extra,
            "expires": one.expires,
        }
    return base64.b64encode(orjson.dumps(said))


def decode(value: bytes) -> Caller:
    """:raises HeadError: it is none of ours."""
    try:
        said = orjson.loads(base64.b64decode(value, validate=True))
        return Caller(_identity(said["identity"]), _text(said["address"]), _text(said["audit_id"]))
    except (binascii.Error, ValueError, KeyError, TypeError, BadIdentity):
        raise HeadError("another replica says who asks in a way that this one does not understand", 502) from None


def encode_notes(notes: Mapping[str, str]) -> bytes:
    """As a header's value."""
    return base64.b64encode(orjson.dumps(notes))


def decode_notes(value: bytes) -> dict[str, str]:
    """:raises HeadError: they are none of ours."""
    try:
        said = orjson.loads(base64.b64decode(value, validate=True))
        return {_text(key): _text(text) for key, text in said.items()}
    except (binascii.Error, ValueError, AttributeError, TypeError):
        raise HeadError("another replica's answer has notes that this one does not understand", 502) from None


def _identity(said: dict[str, Any]) -> Identity:
    extra = tuple((_text(key), tuple(_text(value) for value in values)) for key, values in said["extra"])
    texts = {name: _text(said[name]) for name in _TEXTS}
    groups = tuple(_text(group) for group in said["groups"])
    return Identity(**texts, groups=groups, extra=extra, expires=float(said["expires"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
