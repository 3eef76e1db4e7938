"""JSON from strangers, read strictly: what two readers could understand differently is refused (RFC 8259, section 4;
RFC 7519, section 4, of claims that are there twice).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


class BadJson(ValueError):
    """Not an object in strict JSON; the text says why, and quotes nothing of it."""


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`, in which no key is there twice, however deep.

    :raises BadJson: it is something else.
    """
    try:
        found = json.loads(data.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except BadJson:
        raise
    except ValueError:  # a UnicodeDecodeError too
        raise BadJson("is not JSON in UTF-8") from None
    except RecursionError:
        raise BadJson("nests too deep") from None
    if not isinstance(found, dict):
        raise BadJson("is not a JSON object")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadJson("has a key twice")
    return found


def _no_constant(_: str) -> NoReturn:
    raise BadJson("has a number that is none in JSON")
