"""The port to whoever knows which agents may come in: bootstrap tokens, enrolment, and agents' certificates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed25519


@dataclass(frozen=True, slots=True)
class JoinKey:
    """What a bootstrap token is good for. `key` checks its proofs (`tunnel.proof.join_key`)."""

    key: bytes = field(repr=False)
    cluster: str
    """The one cluster that it may ask for; empty: any that the token's labels allow, which `enrol` decides."""
    expires: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """What an agent asks for, once its bootstrap token's proof was right. `csr` is PEM, and unchecked."""

    token: str
    """The token's id."""
    cluster: str
    cluster_id: str
    agent: str
    instance: str
    address: str
    csr: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A certificate for the agent's key (PEM, the leaf first), and what agents shall trust of the server (PEM)."""

    certificate: str
    trust: str


@dataclass(frozen=True, slots=True)
class AgentCertificate:
    """An agent's certificate that this platform has issued and not taken back."""

    cluster: str
    cluster_id: str
    serial: str
    """Lower-case hex."""
    expires: float
    public_key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey = field(repr=False)


class AgentAuthority(Protocol):
    """Answered from memory: it is asked while an agent waits in the door. All methods may raise
    `tunnel.handshake.Refused`; what they refuse, an agent may ask again after `retry_after`.

    Reasons that an agent acts on: `pending` (asks again with the same key, logs each new message), `certificate` (what
    it holds is no good here: it enrols anew, if it has a join token). Any other is told to people, and tried again.
    """

    def join_key(self, token_id: str) -> JoinKey | None:
        """The key of a bootstrap token, or None for one that is unknown, used up or taken back."""

    def enrol(self, request: EnrolmentRequest) -> Enrolled:
        """Accept a request, whose token has been proved. Refused (`pending`, with retry_after): it waits for an
        administrator, or for the connections of another cluster to be gone; asking again with the same key is the same
        request. The CSR is to be refused unless its own signature is right and it names this cluster and id
        (`tunnel.enrolment.cluster_uri`, a URI among its alternative names); the certificate has to say that URI, too:
        the agent refuses one that does not.
        """

    def renew(self, known: AgentCertificate, csr: str) -> Enrolled:
        """A new certificate for the agent that holds `known`, for a new key or the same. The CSR is checked as in
        `enrol`, against the cluster and the id of `known`.
        """

    def certificate(self, der: bytes) -> AgentCertificate:
        """Check a certificate that an agent shows: issued here, in its time, not revoked. Refused (`certificate`)
        otherwise. That the agent holds its key is checked by the caller.
        """

    def admit(self, known: AgentCertificate) -> str:
        """Whether the holder may attach (and stay attached: it is asked again every few seconds) as its cluster:
        "", or why not."""

    @property
    def trust(self) -> str:
        """PEM of the authorities whose certificates the server shows to agents, now and next: at most
        `tunnel.handshake.MAX_TRUST` characters and 16 authorities, all of them with the basic constraint CA. Empty:
        there is nothing to announce.
        """
