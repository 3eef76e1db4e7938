"""The order in which authenticators are asked, and a memory of what they answered.

The first authenticator that claims the credentials decides, for better or worse. With a certificate *and* a
bearer token in one request, the order in the configuration says which one counts; the default is the
certificate, as in kube-apiserver. But where kube-apiserver would go on after a bad one, a failure here is
final: bad credentials never become another user's, or nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable, Authenticator, NoCredentials
from auth.identity import BadIdentity, Credentials, Identity

_Entry: TypeAlias = tuple[Identity | str, float, float]
_Key: TypeAlias = bytes | tuple[bytes, str]
"""A credential's digest; with a cluster for what holds there alone (its own service accounts, and failures)."""


class AuthenticatorChain:
    """Asks in turn. A known credential costs a dictionary read.

    `ttl` bounds how long a revoked credential still works (the promise is 30 s). Failures are kept apart
    from successes, so that a flood of bad tokens pushes out no user.
    """

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        *,
        ttl: float = 30.0,
        failure_ttl: float = 5.0,
        capacity: int = 10_000,
    ) -> None:
        self._authenticators = tuple(authenticators)
        self._ttl = ttl
        self._failure_ttl = failure_ttl
        self._capacity = capacity
        self._known: dict[_Key, _Entry] = {}
        self._failed: dict[_Key, _Entry] = {}

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity:
        """The user whose credentials these are, on the way to `cluster`.

        :raises AuthenticationFailed: they are bad, or nobody's; NoCredentials where there are none.
        :raises Undecided: somebody else has to be asked first.
        """
        digest = credentials.digest
        entry = self._known.get(digest) or self._known.get((digest, cluster)) or self._failed.get((digest, cluster))
        # The lower bound is for a clock that was set back: what it remembers of its future does not count.
        if entry is None or not entry[1] <= now < entry[2]:
            entry = self._ask(credentials, now, cluster)
        if isinstance(entry[0], str):
            raise AuthenticationFailed(entry[0])
        return entry[0]

    def clear(self) -> None:
        """Forgets everything: for when authorities or keys have changed."""
        self._known.clear()
        self._failed.clear()

    def _ask(self, credentials: Credentials, now: float, cluster: str) -> _Entry:
        if credentials.absent:
            raise NoCredentials("the request carries no credentials")
        here = credentials.digest, cluster
        for memory in (self._known, self._failed):
            memory.pop(credentials.digest, None)
            memory.pop(here, None)
        try:
            identity = self._first(credentials, now, cluster)
        except AuthenticationUnavailable:
            raise  # no answer, so nothing to remember
        except AuthenticationFailed as failure:
            return self._remember(self._failed, here, (failure.reason, now, now + self._failure_ttl))
        key = here if identity.cluster else credentials.digest
        return self._remember(self._known, key, (identity, now, min(identity.expires, now + self._ttl)))

    def _first(self, credentials: Credentials, now: float, cluster: str) -> Identity:
        for authenticator in self._authenticators:
            try:
                identity = authenticator.authenticate(credentials, now, cluster)
            except BadIdentity as bad:
                raise AuthenticationFailed(str(bad)) from None
            if identity is None:
                continue
            if identity.expires <= now:
                raise AuthenticationFailed("the credential has expired")
            if identity.cluster not in ("", cluster):
                raise AuthenticationFailed("the credential is another cluster's")
            return identity
        raise AuthenticationFailed("no authenticator of this gateway knows these credentials")

    def _remember(self, memory: dict[_Key, _Entry], key: _Key, entry: _Entry) -> _Entry:
        if len(memory) >= self._capacity:
            del memory[next(iter(memory))]  # the oldest: dictionaries keep their order
        memory[key] = entry
        return entry
