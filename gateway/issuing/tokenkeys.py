"""The server's hold on the token keys: rotated when that is due, followed when another process has changed them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from auth.identity import Credentials, Identity
from auth.revocations import CurrentRevocations, no_revocations
from auth.tokenkeys import KeyRing
from auth.tokenkeysfile import KeyFile, KeysBusy
from auth.tokens import LONGEST, TokenAuthenticator, TokenSigner
from auth.watched import Watched
from gateway.issuing.settings import TokensConfig
from gateway.state import AUDIENCE, ISSUER, State


@dataclass(frozen=True, slots=True)
class _Current:
    """What follows from one content of the file."""

    ring: KeyRing
    authenticator: TokenAuthenticator


class TokenKeys:
    """Knows Kulvert's tokens (`auth.authenticator.Authenticator`), and signs them."""

    def __init__(
        self, config: TokensConfig, state: State, now: float, revoked: CurrentRevocations = no_revocations
    ) -> None:
        """:raises StateFileError: the keys cannot be used."""
        self._config = config
        self._file: KeyFile = state.token_keys
        self._revoked = revoked
        self._issuer = config.issuer.rstrip("/")
        self._now = now
        self._first = self._issuer or ISSUER
        self._file.change(self._named, self._first, now)
        known = self._file.mark()
        self._take(self._file.load(self._first, now))
        self._watched = Watched(self._file.mark, self._read, self._take, known=known)

    @property
    def ring(self) -> KeyRing:
        """The keys as they are now."""
        return self._current.ring

    @property
    def publishes(self) -> bool:
        """Whether the issuer is an address of this gateway's, where others can look for its keys."""
        return bool(self._issuer)

    def signer(self, now: float) -> TokenSigner:
        """With the key that is active now."""
        ring = self.ring
        return TokenSigner(ring.issuer, AUDIENCE, ring.signing(now).private)

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """See `auth.tokens.TokenAuthenticator`."""
        return self._current.authenticator.authenticate(credentials, now, cluster)

    def poll(self, now: float) -> bool:
        """Rotates where that is due, and takes over what another process did. True where the keys have changed.

        :raises StateFileError: the file cannot be used any more; the keys that are known stay in force.
        """
        self._now = now
        if self._due(self.ring, now):
            try:
                self._file.change(lambda ring: self._turned(ring, now), self._first, now, patience=0.0)
            except KeysBusy:
                pass  # another server does it, or the next look will
        return self._watched.poll()

    def _due(self, ring: KeyRing, now: float) -> bool:
        every, lead = self._config.rotate_every, self._config.publish_lead
        return ring.due(now, every, lead) or ring.pruned(now) is not ring

    def _turned(self, ring: KeyRing, now: float) -> KeyRing:
        """Another process may have been first: what counts is what the file says under the lock."""
        every, lead = self._config.rotate_every, self._config.publish_lead
        return ring.rotated(now, lead) if ring.due(now, every, lead) else ring.pruned(now)

    def _named(self, ring: KeyRing) -> KeyRing:
        return replace(ring, issuer=self._issuer) if self._issuer and ring.issuer != self._issuer else ring

    def _read(self) -> KeyRing:
        return self._file.load(self._first, self._now, patience=0.0)

    def _take(self, ring: KeyRing) -> None:
        keys = [key.verification for key in ring.keys]
        self._current = _Current(ring, TokenAuthenticator(ring.issuer, AUDIENCE, keys, LONGEST, self._revoked))
