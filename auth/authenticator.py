"""The port of every authenticator: a pure decision on what a listener saw, with the time passed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from auth.identity import Credentials, Identity


class AuthenticationFailed(Exception):
    """These credentials are refused: answer 401. `reason` is fit for users and logs, and never holds a credential."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoCredentials(AuthenticationFailed):
    """The request carries no credentials at all; there is no anonymous user."""


class AuthenticationUnavailable(AuthenticationFailed):
    """Nobody can say just now whether these credentials are good (their issuer cannot be reached): answer 503."""


class Undecided(Exception):
    """Not known yet, and to be asked elsewhere: await `settle()`, then ask again. It never raises, but for
    cancellation, and whoever is asked again has an answer, if only AuthenticationUnavailable.
    """

    def __init__(self, settle: Callable[[], Awaitable[None]]) -> None:
        super().__init__("not known yet")
        self.settle = settle


class Authenticator(Protocol):
    """One way to know a user."""

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """The user, or None where these credentials are not this authenticator's business. `cluster` is where the
        request goes, empty for Kulvert's own API; only an identity that says so (`Identity.cluster`) depends on it.

        :raises AuthenticationFailed: they are its business, and bad.
        :raises Undecided: somebody else has to be asked first.
        """
        ...
