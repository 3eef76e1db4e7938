"""What two replicas say first on each connection between them (docs/protocol.md, "Between replicas")."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tunnel import proof
from tunnel.errors import ProtocolError
from tunnel.handshake import Challenge, Refused, session_of, versions_of, welcomed
from tunnel.limits import KIB
from tunnel.messages import Message, encode_message, number, text

VERSIONS: Final = (1,)
SESSION: Final = "session"
OWN: Final = "own"
ADOPT: Final = "adopt"
MAX_GREETING: Final = 48 * KIB
"""Bytes: an agent's hello of 8 KiB, which JSON may make three times as long, and a certificate."""
_MAX_CERTIFICATE: Final = 16 * KIB
_MAX_LINKS: Final = 10**6


@dataclass(frozen=True, slots=True)
class PeerHello:
    """Said by the replica that dials. `to` is the identity that it means to reach."""

    identity: str
    to: str
    link: str
    versions: tuple[int, ...] = VERSIONS
    credit: int = 0
    """Of a session: initial credit of each answer, in bytes."""
    session: str = ""
    secret: str = field(default="", repr=False)
    link_id: int = 0
    adopted: Adopted | None = None

    def encode(self) -> bytes:
        """The message `peer`."""
        adopted = self.adopted.fields() if self.adopted is not None else {}
        return encode_message(
            "peer",
            versions=list(self.versions),
            identity=self.identity,
            to=self.to,
            link=self.link,
            credit=self.credit or None,
            session=self.session or None,
            secret=self.secret or None,
            linkId=self.link_id or None,
            **adopted,
        )

    @classmethod
    def parse(cls, message: Message) -> PeerHello:
        """Raises ProtocolError."""
        if message["kind"] != "peer":
            raise ProtocolError("the other side did not begin as a replica does")
        who = (text(message, "identity"), text(message, "to"), text(message, "link", 16), versions_of(message))
        if who[2] == SESSION:
            return cls(*who, credit=number(message, "credit", KIB, 2**32))
        if who[2] == OWN:
            own = (text(message, "session", 64), text(message, "secret", 64), number(message, "linkId", 1))
            return cls(*who, 0, *own)
        if who[2] == ADOPT:
            return cls(*who, adopted=Adopted.parse(message))
        raise ProtocolError(f"peer: link {who[2]!r} is unknown")

    def version(self) -> int:
        """The highest version that both speak. Raises Refused."""
        common = set(self.versions) & set(VERSIONS)
        if not common:
            spoken = ", ".join(map(str, VERSIONS))
            raise Refused("version", f"replica {self.to} speaks version {spoken} of the protocol between replicas")
        return max(common)


@dataclass(frozen=True, slots=True)
class Adopted:
    """An agent's connection as the replica that greeted it has found it."""

    challenge: Challenge
    hello: Message = field(repr=False)
    address: str
    certificate: bytes | None = field(default=None, repr=False)
    """The agent's (DER), where TLS has seen one."""

    def fields(self) -> Message:
        """The fields of the message `peer`."""
        certificate = proof.encode(self.certificate) if self.certificate is not None else None
        challenge = self.challenge
        return {
            "nonce": challenge.nonce,
            "epoch": challenge.epoch,
            "server": challenge.server,
            "offered": list(challenge.versions),
            "hello": self.hello,
            "address": self.address,
            "certificate": certificate,
        }

    @classmethod
    def parse(cls, message: Message) -> Adopted:
        """Raises ProtocolError."""
        hello, certificate = message.get("hello"), None
        if not isinstance(hello, dict) or not isinstance(hello.get("kind"), str):
            raise ProtocolError("peer: hello is missing or malformed")
        if "certificate" in message:
            try:
                certificate = proof.decode(text(message, "certificate", _MAX_CERTIFICATE))
            except ValueError:
                raise ProtocolError("peer: certificate is malformed") from None
        told = {name: message.get(name) for name in ("nonce", "epoch", "server")}
        challenge = Challenge.parse({"kind": "challenge", "versions": message.get("offered")} | told)
        return cls(challenge, hello, text(message, "address", 128), certificate)


@dataclass(frozen=True, slots=True)
class PeerWelcome:
    """The answer. What follows `version` is of a session alone."""

    version: int
    session: str = ""
    secret: str = field(default="", repr=False)
    credit: int = 0
    """Initial credit of each request, in bytes."""
    exchanges: int = 0
    links: int = 0
    """How many own links there may be, ..."""
    warm: int = 0
    """... and how many of them are kept although nothing needs them."""

    def encode(self) -> bytes:
        """The message `welcome`."""
        if not self.session:
            return encode_message("welcome", version=self.version)
        return encode_message(
            "welcome",
            version=self.version,
            session=self.session,
            secret=self.secret,
            credit=self.credit,
            exchanges=self.exchanges,
            links=self.links,
            warm=self.warm,
        )

    @classmethod
    def parse(cls, message: Message, *, session: bool) -> PeerWelcome:
        """Raises Refused, or ProtocolError."""
        version = welcomed(message, "replica")
        if version not in VERSIONS:
            raise ProtocolError(f"the replica chose version {version}, which was not offered")
        if not session:
            return cls(version)
        return cls(
            version,
            *session_of(message),
            number(message, "links", 0, _MAX_LINKS),
            number(message, "warm", 0, _MAX_LINKS),
        )
