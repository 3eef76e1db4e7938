"""Which form of an answer the client wants: the object, a table of it, or its metadata alone.

A list of media types is tried in order; what the sample cannot make (protobuf, aggregated discovery) is
passed over, which is what makes kubectl fall back to what it can.
"""

from __future__ import annotations

from enum import Enum

from cli.sample.status import not_acceptable

_JSON = ("application/json", "application/*", "*/*")
_GROUP = "meta.k8s.io"


class View(Enum):
    PLAIN = "plain"
    TABLE = "table"
    METADATA = "metadata"


_VIEWS = {
    "": View.PLAIN,
    "Table": View.TABLE,
    "PartialObjectMetadata": View.METADATA,
    "PartialObjectMetadataList": View.METADATA,
}


def negotiate(header: str | None, *, allowed: tuple[View, ...] = tuple(View)) -> View:
    for media_range in (header or "*/*").split(","):
        view = _view(media_range)
        if view in allowed:
            return view
    raise not_acceptable()


def _view(media_range: str) -> View | None:
    media_type, *rest = (part.strip() for part in media_range.split(";"))
    if media_type not in _JSON:
        return None
    parameters = dict(part.partition("=")[::2] for part in rest)
    wanted = parameters.get("as", "")
    if wanted and (parameters.get("g"), parameters.get("v")) != (_GROUP, "v1"):
        return None
    return _VIEWS.get(wanted)
