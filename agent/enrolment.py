"""Enrolment: an agent without a certificate asks for one, by its join token (docs/protocol.md, 3)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from agent.address import Target
from agent.attaching import Greeting
from agent.dial import Dialler
from agent.identityfile import AgentIdentity
from agent.knock import Knocking, knock
from agent.membership import Membership
from agent.settings import JoinToken
from tunnel import proof
from tunnel.adapter import LinkConnection
from tunnel.batch import Batch
from tunnel.enrolment import EnrolHello, Issued, cluster_uri, common_name
from tunnel.errors import ProtocolError, TunnelError
from tunnel.handshake import Challenge, Refused
from tunnel.messages import Message

log = structlog.get_logger("kulvert.agent")

PENDING = "pending"


class NotEnrolled(TunnelError):
    """There is no certificate, and nothing to ask for one with; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks. Without a token nobody does: there is a certificate, or the agent stays outside."""

    agent: str
    software: str
    instance: str
    token: JoinToken | None = field(default=None, repr=False)


class Enrolment:
    """Gives the identity to attach with; asks for one where there is none."""

    def __init__(
        self,
        asking: Asking,
        membership: Membership,
        dialler: Dialler,
        batch: Batch,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.membership = membership
        self._asking = asking
        self._place = Knocking(dialler, batch)
        self._randomness = randomness
        self._told = ""

    async def ready(self, target: Target) -> AgentIdentity:
        """The identity, enrolled at `target` first if need be. Raises Refused (`pending`, too), NotEnrolled,
        DialFailed, TunnelError, OSError, TimeoutError. A certificate that a server did not take is tried again then.
        """
        membership, token = self.membership, self._asking.token
        membership.refresh()
        identity = membership.identity
        if identity is not None and not (membership.doubted and token is not None):
            return identity
        if token is None:
            raise NotEnrolled(
                "this agent has no certificate (any more), and no join token to ask for one: make a token "
                "(`kulvert token create`), and give it as joinTokenFile"
            )
        try:
            return await self._enrol(token, target)
        finally:
            membership.doubted = False

    async def _enrol(self, token: JoinToken, target: Target) -> AgentIdentity:
        key = self.membership.asking_key()
        csr = request(key, self.membership.cluster, self.membership.cluster_id)
        try:
            asked = await knock(
                *(self._place, target),
                lambda name: EnrolGreeting(lambda challenge: self._hello(token, csr, name, challenge)),
            )
        except Refused as refused:
            self._tell(refused)
            raise
        identity = await self.membership.take(key, asked.issued)
        hours = round((identity.expires - identity.began) / 3600, 1)
        log.info("enrolled", cluster=self.membership.cluster, hours=hours)
        return identity

    def _tell(self, refused: Refused) -> None:
        if refused.reason == PENDING and refused.message != self._told:
            log.info("waiting to be accepted", message=refused.message)
        self._told = refused.message if refused.reason == PENDING else ""

    def _hello(self, token: JoinToken, csr: str, name: str, challenge: Challenge) -> EnrolHello:
        asking, membership = self._asking, self.membership
        version, nonce = challenge.version(), proof.encode(self._randomness(32))
        bound = (challenge.nonce, nonce, challenge.epoch, challenge.server, name)
        who = (membership.cluster, membership.cluster_id)
        signed = proof.enrol(token.key(), *bound, *who, asking.instance, csr)
        return EnrolHello(
            version, name, nonce, signed, token.id, *who, asking.agent, asking.instance, csr, asking.software
        )


class EnrolGreeting(Greeting):
    """The greeter of a connection on which an agent asks; `issued` is there when it is done."""

    def __init__(self, answer: Callable[[Challenge], EnrolHello]) -> None:
        super().__init__(answer)
        self.issued: Issued

    def take(self, connection: LinkConnection, challenge: Challenge, message: Message) -> None:
        """The stub's answer; it closes the connection itself."""
        self.issued = Issued.parse(message)
        if not self.issued.certificate:
            raise ProtocolError("enrolled: there is no certificate")


def request(key: ec.EllipticCurvePrivateKey, cluster: str, cluster_id: str) -> str:
    """A certificate signing request (PEM)."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name(cluster))])
    uri = x509.UniformResourceIdentifier(cluster_uri(cluster, cluster_id))
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
