"""The port of every authenticator: a pure decision on what a listener saw, with the time passed in."""

from __future__ import annotations

from typing import Protocol

from auth.identity import Credentials, Identity


class AuthenticationFailed(Exception):
    """These credentials are refused: answer 401. `reason` is fit for users and logs, and never holds a credential."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoCredentials(AuthenticationFailed):
    """The request carries no credentials at all; there is no anonymous user."""


class Authenticator(Protocol):
    """One way to know a user."""

    def authenticate(self, credentials: Credentials, now: float) -> Identity | None:
        """The user, or None where these credentials are not this authenticator's business.

        :raises AuthenticationFailed: they are its business, and bad.
        """
        ...
