"""The grants file on disk. To take everybody's access away, write an empty list of grants: a removed file changes
nothing (`auth.watchedfile`).
"""

from __future__ import annotations

from pathlib import Path

from auth.grants.grant import Grant
from auth.grants.yaml import parse_grants
from auth.watchedfile import WatchedFile

_MAX_BYTES = 4 * 1024 * 1024


class GrantsFile(WatchedFile[tuple[Grant, ...]]):
    """Grants from a file, in its order."""

    def __init__(self, path: Path) -> None:
        """:raises FileError: there are no readable grants, so there is nothing to start with."""
        super().__init__(path, lambda text: parse_grants(text, str(path)).grants, "the grants", _MAX_BYTES)

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Those in force."""
        return self.content
