"""The record that says whose mirror the hub's records are: made by the replica that comes first.

A file remembers its id. A file of another id, or of none, is no part of this installation: the hub counts, and what is
in the file is kept aside. Where there is no such record, the hub has nothing yet (or has lost it): then what is in the
file is brought there, and others wait until it is `ready`. Nobody serves meanwhile, so nobody removes anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

TABLE: Final = "installation"


class BadMarker(ValueError):
    """The record is malformed."""


@dataclass(frozen=True, slots=True)
class Marker:
    """`by` is the identity of who has written it last, `turn` a number of his: for `Mirror.caught_up`."""

    id: str
    ready: bool
    by: str = ""
    turn: int = 0

    def dumped(self) -> bytes:
        """For the record."""
        return orjson.dumps({"id": self.id, "ready": self.ready, "by": self.by, "turn": self.turn})

    @classmethod
    def read(cls, text: bytes) -> Marker:
        """:raises BadMarker: it is none."""
        try:
            found = orjson.loads(text)
            made = cls(found["id"], found["ready"], str(found.get("by", "")), int(found.get("turn", 0)))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadMarker("malformed") from None
        if not isinstance(made.id, str) or not made.id or not isinstance(made.ready, bool):
            raise BadMarker("malformed")
        return made


def name_of(installation: str) -> str:
    """The name of its Secret."""
    return f"{installation}-mirror"
