"""The agent as a member: the identity that it proves, the authorities that it trusts, and the TLS that follows."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from agent.identityfile import AgentIdentity, IdentityFile
from agent.trust import Trust, TrustError
from tunnel.enrolment import Issued

log = structlog.get_logger("kulvert.agent")


class Membership:
    """`use` gets a new TLS context whenever identity or trust changes: it counts from the next connection on.

    `doubted` is set when a server says that the certificate is no good, until something else was tried.
    """

    def __init__(
        self,
        cluster: str,
        cluster_id: str,
        file: IdentityFile,
        trust: Trust,
        use: Callable[[ssl.SSLContext], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError where the file cannot be used as it is."""
        self.cluster = cluster
        self.cluster_id = cluster_id
        self.doubted = False
        self._file = file
        self._trust = trust
        self._use = use
        self._wall = wall
        self._identity = file.load(cluster, cluster_id)
        self._shows = True
        self._shown: AgentIdentity | None = None
        self.refresh(anyway=True)

    @property
    def identity(self) -> AgentIdentity | None:
        """What the agent can prove now: None before it was enrolled, and when that has expired."""
        found = self._identity
        return found if found is not None and self._wall() < found.expires else None

    def holds(self, identity: AgentIdentity) -> bool:
        """Whether a certificate of this agent is good now, as far as one can see."""
        return identity.began <= self._wall() < identity.expires

    def asking_key(self) -> ec.EllipticCurvePrivateKey:
        """The key for a request, the same until it is granted. Raises ConfigError, OSError."""
        return self._file.asking_key()

    async def take(self, key: ec.EllipticCurvePrivateKey, issued: Issued) -> AgentIdentity:
        """A certificate was granted: it is kept before it is used. Raises IdentityError, OSError."""
        identity = AgentIdentity.of(key, issued.certificate, self.cluster, self.cluster_id)
        await self.adopt(identity)
        self.announced(issued.trust)
        return identity

    async def adopt(self, identity: AgentIdentity) -> None:
        """A certificate of this cluster: it is kept before it is used. Raises OSError."""
        await asyncio.to_thread(self._file.save, identity)
        self._identity, self.doubted = identity, False
        self.refresh()

    def announced(self, bundle: str) -> None:
        """An authenticated server says whom to trust from now on."""
        try:
            changed = self._trust.announce(bundle)
        except TrustError as error:
            log.error("authorities that the server announced are not trusted", error=str(error))
            return
        except OSError as error:
            log.error("announced authorities are trusted, but cannot be kept", error=error.strerror)
            changed = True
        if changed:
            log.info("the server announced its authorities")
            self.refresh(anyway=True)

    # --- TLS

    def refresh(self, *, anyway: bool = False) -> None:
        """See that TLS offers the present identity, or none: a server that asks for one would refuse an expired one,
        and with it an agent that wants to be enrolled.
        """
        shown = self.identity if self._shows and not self.doubted else None
        if anyway or shown is not self._shown:
            self._shown = shown
            self._use(self._trust.context(shown.pem() if shown is not None else None))

    def failed(self) -> None:
        """A connection ended before it was a link. Perhaps because of the certificate that TLS offered, which is
        refused without a word: try with it and without in turn. What proves the agent is its hello.
        """
        self._shows = not self._shows
        self.refresh()
