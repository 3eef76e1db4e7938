"""The authentication configuration on disk. To do without OIDC issuers, leave the list `jwt` empty: a removed file
changes nothing (`auth.watchedfile`).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from auth.oidc.config import AuthenticationConfiguration
from auth.oidc.configyaml import parse_authentication_configuration
from auth.watchedfile import WatchedFile

_MAX_BYTES: Final = 1024 * 1024


class AuthenticationConfigFile(WatchedFile[AuthenticationConfiguration]):
    """The configuration from a file."""

    def __init__(self, path: Path, disallowed: Collection[str] = ()) -> None:
        """`disallowed`: issuers that the file must not name, because they are known otherwise.

        :raises FileError: there is nothing readable, so there is nothing to start with.
        """
        issuers = frozenset(disallowed)
        super().__init__(
            path,
            lambda text: parse_authentication_configuration(text, str(path), issuers),
            "the OIDC issuers",
            _MAX_BYTES,
        )

    @property
    def configuration(self) -> AuthenticationConfiguration:
        """What is in force."""
        return self.content
