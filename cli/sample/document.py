"""Kubernetes objects as plain dictionaries, and the one way to and from JSON.

The sample knows a handful of kinds and validates next to nothing, so typed models would be ceremony; orjson
keeps a GET cheap enough that a benchmark measures the tunnel, not this server.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import orjson

Obj: TypeAlias = dict[str, Any]

VERSION = "v1.36.0-kulvert-sample"
LABEL = "kulvert.dev/sample"


def dumps(value: Any) -> bytes:
    return orjson.dumps(value)


def loads(data: bytes) -> Any:
    return orjson.loads(data)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in whole seconds, as metav1.Time is written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def dig(value: Any, path: Sequence[str], default: Any = None) -> Any:
    """The value at a path of keys, or the default as soon as one is missing."""
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return default
        value = value[key]
    return value
