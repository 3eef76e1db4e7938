"""The messages of attaching (docs/protocol.md, 3) as values: read strictly, written without what is unset."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunnel.errors import ProtocolError, TunnelError
from tunnel.limits import KIB
from tunnel.messages import Message, block, encode_message, number, text

VERSIONS = (1,)
PATH = "/kulvert/v1/link"
SUBPROTOCOL = "link.kulvert.dev.v1"
MAX_CERTIFICATE = 4 * KIB
"""Characters of an agent's certificate in hello (base64url)."""
MAX_TRUST = 32 * KIB
"""Characters of a trust bundle (PEM)."""
MAX_SIGNATURE = 192
"""Characters of a proof that is a signature (P-384 has the longest)."""
MAX_WAIT = 60
"""Seconds that one `wait` asks for at most."""
MAX_SILENCE = 600_000
"""Milliseconds."""

MOVED = "moved"
"""Reason of a refusal: what is asked for is another replica's, which is at `address`."""
STANDBY = "standby"
"""Reason of a refusal: this replica takes no agents at present, another one of the configured ones does."""
DRAINING = "draining"
"""Reason of a refusal: this replica is shutting down."""


_HINT = re.compile(r"kulvert-worker-[0-9]{1,3}", re.ASCII)


class Refused(TunnelError):
    """The stub does not take this link. `address` is where it belongs, `retry_after` when to try again (seconds).
    `hint`: it belongs to another process at this very address, which an ALPN entry of this name leads to.
    """

    def __init__(self, reason: str, message: str, address: str = "", retry_after: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.address = address
        self.retry_after = retry_after
        self.hint = hint

    def encode(self) -> bytes:
        """The message `refused`."""
        return encode_message(
            "refused",
            reason=self.reason,
            message=self.message,
            address=self.address or None,
            retryAfter=self.retry_after or None,
            hint=self.hint or None,
        )

    @classmethod
    def parse(cls, message: Message) -> Refused:
        """From the message `refused`."""
        return cls(
            text(message, "reason", 64),
            text(message, "message", KIB),
            text(message, "address", default=""),
            number(message, "retryAfter", 0, 86_400, default=0),
            hint_of(message),
        )


@dataclass(frozen=True, slots=True)
class Wait:
    """The stub has taken hello, and knows of no replica that has the cluster's agents just now: be patient for so many
    more seconds, from this message on. It is said again before they are over, as often as it takes.
    """

    seconds: float

    def encode(self) -> bytes:
        """The message `wait`."""
        return encode_message("wait", seconds=max(1, min(round(self.seconds), MAX_WAIT)))

    @classmethod
    def parse(cls, message: Message) -> Wait:
        """From the message `wait`. Raises ProtocolError."""
        return cls(float(number(message, "seconds", 1, MAX_WAIT)))


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the stub says first on each connection. An `epoch` of 0 says nothing: the welcome tells it."""

    nonce: str
    versions: tuple[int, ...]
    epoch: int
    server: str

    def encode(self) -> bytes:
        """The message `challenge`."""
        return encode_message(
            "challenge", nonce=self.nonce, versions=list(self.versions), epoch=self.epoch, server=self.server
        )

    @classmethod
    def parse(cls, message: Message) -> Challenge:
        """From the first message of a connection. Raises ProtocolError."""
        if message["kind"] != "challenge":
            raise ProtocolError("the stub did not begin with a challenge")
        spoken = versions_of(message)
        return cls(text(message, "nonce", 64), spoken, number(message, "epoch"), text(message, "server"))

    def version(self) -> int:
        """The highest version that both speak. Raises ProtocolError where there is none."""
        common = set(self.versions) & set(VERSIONS)
        if not common:
            raise ProtocolError(
                f"the stub speaks the versions {self.versions}, this agent {VERSIONS}: upgrade one of them"
            )
        return max(common)


@dataclass(frozen=True, slots=True)
class Hello:
    """What an agent answers: which link this is, and the proof. Fields of the other kind of link are empty."""

    version: int
    link: str
    name: str
    nonce: str
    proof: str
    cluster: str = ""
    cluster_id: str = ""
    agent: str = ""
    instance: str = ""
    certificate: str = ""
    """base64url of the DER; what the proof is checked with."""
    software: str = ""
    credit: int = 64 * KIB
    exchanges: int = 0
    links: int = 0
    supersedes: str = ""
    supersedes_proof: str = ""
    session: str = ""
    link_id: int = 0
    hints: bool = False
    """The agent follows a hint, and has not done so for this connection."""

    def encode(self) -> bytes:
        """The message `hello`."""
        base = {"version": self.version, "link": self.link, "name": self.name, "nonce": self.nonce, "proof": self.proof}
        if self.link == "own":
            return encode_message("hello", **base, session=self.session, linkId=str(self.link_id))
        replaced = {"session": self.supersedes, "proof": self.supersedes_proof} if self.supersedes else None
        return encode_message(
            "hello",
            **base,
            cluster=self.cluster,
            clusterId=self.cluster_id,
            agent=self.agent,
            instance=self.instance,
            certificate=self.certificate,
            software=self.software,
            credit=self.credit,
            exchanges=self.exchanges,
            links=self.links,
            hints=self.hints or None,
            supersedes=replaced,
        )

    @classmethod
    def parse(cls, message: Message) -> Hello:
        """From the first message of an agent. Raises ProtocolError for what is missing, malformed or out of bounds."""
        if message["kind"] != "hello":
            raise ProtocolError("the agent did not begin with hello")
        link = text(message, "link", 16)
        base = (number(message, "version", 0, 255), link, text(message, "name"))
        secret = (text(message, "nonce", 64), text(message, "proof", 64 if link == "own" else MAX_SIGNATURE))
        if link == "own":
            link_id = text(message, "linkId", 20)
            if not link_id.isascii() or not link_id.isdigit() or not 0 < int(link_id) < 2**64:
                raise ProtocolError("hello: linkId is malformed")
            return cls(*base, *secret, session=text(message, "session", 64), link_id=int(link_id))
        if link != "shared":
            raise ProtocolError("hello: link is neither shared nor own")
        return cls._shared(message, base, secret)

    @classmethod
    def _shared(cls, message: Message, base: tuple[int, str, str], secret: tuple[str, str]) -> Hello:
        replaced = message.get("supersedes") or {}
        if not isinstance(replaced, dict):
            raise ProtocolError("hello: supersedes is malformed")
        replaced = {"kind": "hello.supersedes", "session": "", "proof": ""} | replaced
        return cls(
            *base,
            *secret,
            cluster=text(message, "cluster", 63),
            cluster_id=text(message, "clusterId", 64),
            agent=text(message, "agent"),
            instance=text(message, "instance", 32),
            certificate=text(message, "certificate", MAX_CERTIFICATE),
            software=text(message, "software", 128, default=""),
            credit=number(message, "credit", KIB, 2**32),
            exchanges=number(message, "exchanges", 1, 10**6),
            links=number(message, "links", 0, 10**6),
            hints=message.get("hints") is True,
            supersedes=text(replaced, "session", 64),
            supersedes_proof=text(replaced, "proof", 64),
        )


@dataclass(frozen=True, slots=True)
class Welcome:
    """The stub's yes. For an own link everything but `version` is empty."""

    version: int
    session: str = ""
    secret: str = ""
    credit: int = 0
    exchanges: int = 0
    address: str = ""
    server_name: str = ""
    trust: str = ""
    """PEM of the authorities that the agent shall trust from now on, besides those it was configured with."""
    epoch: int | None = None
    """The replica's holding of this cluster; None: the challenge's epoch counts."""
    silence: float = 0.0
    """Seconds: a stub that was silent for longer may have lost its Lease, and its session ends. 0: nothing is said."""
    hint: str = ""
    """Own links are dialled with this ALPN entry, too: it leads to the process that has the session."""

    def __repr__(self) -> str:
        return f"Welcome(version={self.version}, session={self.session!r})"

    def encode(self) -> bytes:
        """The message `welcome`."""
        if not self.session:
            return encode_message("welcome", version=self.version)
        address = {"url": self.address, "serverName": self.server_name} if self.address else {}
        if self.hint:
            address["hint"] = self.hint
        return encode_message(
            "welcome",
            version=self.version,
            session=self.session,
            secret=self.secret,
            credit=self.credit,
            exchanges=self.exchanges,
            address=address or None,
            trust=self.trust or None,
            epoch=self.epoch,
            silenceMs=round(self.silence * 1000) or None,
        )

    @classmethod
    def parse(cls, message: Message, *, own: bool) -> Welcome:
        """From the stub's answer to hello. Raises Refused, or ProtocolError."""
        version = welcomed(message, "stub")
        if own:
            return cls(version)
        address = message.get("address") or {}
        if not isinstance(address, dict):
            raise ProtocolError("welcome: address is malformed")
        address = {"kind": "welcome.address"} | address
        return cls(
            version,
            *session_of(message),
            text(address, "url", default=""),
            text(address, "serverName", default=""),
            block(message, "trust", MAX_TRUST, ""),
            number(message, "epoch") if "epoch" in message else None,
            number(message, "silenceMs", 0, MAX_SILENCE, default=0) / 1000,
            hint_of(address),
        )


def versions_of(message: Message) -> tuple[int, ...]:
    """What the other side speaks; what is no number among it is left out. Raises ProtocolError."""
    versions = message.get("versions")
    if not isinstance(versions, list) or len(versions) > 64:
        raise ProtocolError(f"{message['kind']}: versions is missing or malformed")
    return tuple(v for v in versions if isinstance(v, int) and not isinstance(v, bool))


def welcomed(message: Message, who: str) -> int:
    """The version that the answer to a hello chooses; `who` gives it. Raises Refused, or ProtocolError."""
    if message["kind"] == "refused":
        raise Refused.parse(message)
    if message["kind"] != "welcome":
        raise ProtocolError(f"the {who} answered hello with neither welcome nor refused")
    return number(message, "version", 1, 255)


def session_of(message: Message) -> tuple[str, str, int, int]:
    """(session, secret, credit in bytes, exchanges) of a welcome that begins a session. Raises ProtocolError."""
    return (
        text(message, "session", 64),
        text(message, "secret", 64),
        number(message, "credit", KIB, 2**32),
        number(message, "exchanges", 1, 10**6),
    )


def hint_of(message: Message) -> str:
    """One that is no name of a process at its server is none: nothing else gets into a TLS handshake."""
    found = message.get("hint")
    return found if isinstance(found, str) and _HINT.fullmatch(found) else ""
