"""What an agent's session rests on: the certificate that it has proved, for as long as that is accepted."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from stub.authority import AgentAuthority, AgentCertificate
from tunnel import proof
from tunnel.adapter import LinkConnection
from tunnel.calls import CallFailed, Method, Params
from tunnel.enrolment import MAX_CSR
from tunnel.errors import ProtocolError
from tunnel.handshake import Challenge, Hello, Refused
from tunnel.messages import block

RENEW: Final = "agent.renew"
REVIEW: Final = 5.0
"""Seconds between two looks at whether a session's agent may still be there."""
RENEWALS: Final = 3
PER: Final = 60.0
"""An agent gets `RENEWALS` certificates in so many seconds: a signature costs more than a question."""


def proved(authority: AgentAuthority, challenge: Challenge, hello: Hello, peer: bytes | None) -> AgentCertificate:
    """Who an agent is, by its certificate alone: hello only repeats it. `peer` is the one that TLS has seen, if any.
    Raises Refused.
    """
    try:
        der = proof.decode(hello.certificate)
    except ValueError:
        raise Refused("certificate", "the agent's certificate is malformed") from None
    if peer is not None and peer != der:
        raise Refused("certificate", "the certificate in hello is another one than in TLS")
    known = authority.certificate(der)
    bound = (challenge.nonce, hello.nonce, challenge.epoch, challenge.server, hello.name)
    lines = proof.shared(*bound, hello.cluster, hello.cluster_id, hello.instance, der)
    if not proof.signed(known.public_key, lines, hello.proof):
        raise Refused("proof", "the proof of this link is wrong: its key is not the certificate's")
    if (known.cluster, known.cluster_id) != (hello.cluster, hello.cluster_id):
        raise Refused("identity", f"the agent's certificate does not name cluster {hello.cluster!r} and its id")
    return known


class Standing:
    """A session's right to be there: `known`, which each renewal over the session replaces, so that none is ended when
    the certificate it began with expires.
    """

    def __init__(
        self,
        authority: AgentAuthority,
        known: AgentCertificate,
        clock: Callable[[], float],
        wall: Callable[[], float],
        keeping: Callable[[], Callable[[], Awaitable[None]]] | None = None,
    ) -> None:
        """`keeping`: see `stub.attachment.Attachment`."""
        self.known = known
        self.due = clock() + REVIEW
        self._authority = authority
        self._clock = clock
        self._wall = wall
        self._keeping = keeping
        self._trust = authority.trust
        self._renewals: deque[float] = deque(maxlen=RENEWALS)

    def refuses(self) -> Refused | None:
        """Why the agent may not be there (any more)."""
        if self.known.expires <= self._wall():
            return Refused("certificate", "the agent's certificate has expired")
        try:
            why = self._authority.admit(self.known)
        except Refused as refused:
            return refused
        return Refused("cluster", why) if why else None

    def review(self, now: float) -> Refused | None:
        """As `refuses`, but asked no more often than every `REVIEW` seconds. `now` is the clock's."""
        if now < self.due:
            return None
        self.due = now + REVIEW
        return self.refuses()

    def news(self) -> str:
        """The bundle of authorities that the agent was not told yet, or ""."""
        trust = self._authority.trust
        if trust == self._trust:
            return ""
        self._trust = trust
        return trust

    async def renew(self, params: Params) -> Params:
        """The method `agent.renew`."""
        try:
            csr = block({"kind": RENEW} | params, "csr", MAX_CSR)
        except ProtocolError as error:
            raise CallFailed("malformed", str(error)) from error
        self._count(self._clock())
        try:
            if (why := self.refuses()) is not None:
                raise why
            kept = self._keeping() if self._keeping is not None else None
            granted = self._authority.renew(self.known, csr)
            if kept is not None:
                await _awaited(kept)
            self.known = self._authority.certificate(leaf(granted.certificate))
        except Refused as refused:
            raise CallFailed(refused.reason, refused.message) from refused
        return {"certificate": granted.certificate, "trust": granted.trust}

    def _count(self, now: float) -> None:
        if len(self._renewals) == RENEWALS and now - self._renewals[0] < PER:
            raise CallFailed("overloaded", f"no more than {RENEWALS} renewals in {PER:g} s")
        self._renewals.append(now)


async def _awaited(kept: Callable[[], Awaitable[None]]) -> None:
    """Every replica is to know a certificate before its agent does."""
    try:
        await kept()
    except Exception as error:
        raise CallFailed("unavailable", "the certificate cannot be kept for all replicas: try again") from error


def renewal_methods(standing: Standing) -> Mapping[str, Method]:
    """What every attached agent may call, by name."""
    return {RENEW: standing.renew}


def leaf(chain: str) -> bytes:
    """The DER of the first certificate of a PEM."""
    return x509.load_pem_x509_certificate(chain.encode()).public_bytes(Encoding.DER)


def peer_certificate(connection: LinkConnection) -> bytes | None:
    """The certificate (DER) that TLS has verified, where it asked for one, and no load balancer ended it before us."""
    tls: Any = connection.transport.get_extra_info("ssl_object") if connection.transport else None
    found: bytes | None = tls.getpeercert(binary_form=True) if tls is not None else None
    return found
