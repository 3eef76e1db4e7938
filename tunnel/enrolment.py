"""The messages of enrolment (docs/protocol.md, 3), and how an agent's request and certificate name its cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tunnel.errors import ProtocolError
from tunnel.handshake import MAX_TRUST, Refused
from tunnel.limits import KIB
from tunnel.messages import Message, block, encode_message, number, text

MAX_CSR: Final = 2 * KIB
MAX_CHAIN: Final = 16 * KIB
LINK: Final = "enrol"
_COMMON_NAME: Final = 64
"""Characters of a common name at most (RFC 5280, A.1)."""


def cluster_uri(cluster: str, cluster_id: str) -> str:
    """The URI, among the alternative names of a request and of a certificate, that counts."""
    return f"kulvert://cluster/{cluster}/{cluster_id}"


def common_name(cluster: str) -> str:
    """The common name: for people, and cut where a cluster's name is too long for it."""
    return f"kulvert:agent:{cluster}"[:_COMMON_NAME]


@dataclass(frozen=True, slots=True)
class EnrolHello:
    """A hello that asks for a certificate. `token` is the join token's id, `csr` is PEM."""

    version: int
    name: str
    nonce: str
    proof: str
    token: str
    cluster: str
    cluster_id: str
    agent: str
    instance: str
    csr: str = field(repr=False)
    software: str = ""

    def encode(self) -> bytes:
        """The message `hello`."""
        return encode_message(
            "hello",
            version=self.version,
            link=LINK,
            name=self.name,
            nonce=self.nonce,
            proof=self.proof,
            token=self.token,
            cluster=self.cluster,
            clusterId=self.cluster_id,
            agent=self.agent,
            instance=self.instance,
            csr=self.csr,
            software=self.software,
        )

    @classmethod
    def parse(cls, message: Message) -> EnrolHello:
        """From a hello whose link is `enrol`. Raises ProtocolError."""
        return cls(
            number(message, "version", 0, 255),
            text(message, "name"),
            text(message, "nonce", 64),
            text(message, "proof", 64),
            text(message, "token", 64),
            text(message, "cluster", 63),
            text(message, "clusterId", 64),
            text(message, "agent"),
            text(message, "instance", 32),
            block(message, "csr", MAX_CSR),
            text(message, "software", 128, default=""),
        )


@dataclass(frozen=True, slots=True)
class Issued:
    """The stub's answer: a certificate (PEM, the leaf first), and whom the agent shall trust from now on (PEM)."""

    certificate: str
    trust: str = ""

    def encode(self) -> bytes:
        """The message `enrolled`."""
        return encode_message("enrolled", certificate=self.certificate, trust=self.trust or None)

    @classmethod
    def parse(cls, message: Message) -> Issued:
        """From the stub's answer to an `EnrolHello`. Raises Refused, or ProtocolError."""
        if message["kind"] == "refused":
            raise Refused.parse(message)
        if message["kind"] != "enrolled":
            raise ProtocolError("the stub answered an enrolment with neither enrolled nor refused")
        return cls.of(message)

    @classmethod
    def of(cls, message: Message) -> Issued:
        """The fields of `enrolled`, or of a renewal's result. Raises ProtocolError."""
        return cls(block(message, "certificate", MAX_CHAIN), block(message, "trust", MAX_TRUST, ""))
