"""The agent's key and certificate, and the file in which they outlive a restart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from agent.privatefile import own_directory, read_private, write_private
from agent.settings import ConfigError
from tunnel.enrolment import cluster_uri
from tunnel.errors import TunnelError

IDENTITY: Final = "agent.pem"
ASKING: Final = "asking.pem"
"""The key of a request that has not been accepted yet: a restart asks with it again."""


_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


class IdentityError(TunnelError):
    """A certificate is not this agent's, or none; the text says why."""


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """A key, and the certificate (PEM, the leaf first) that names the agent's cluster. Times are epoch seconds."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: str = field(repr=False)
    der: bytes = field(repr=False)
    began: float
    expires: float

    @classmethod
    def of(cls, key: ec.EllipticCurvePrivateKey, chain: str, cluster: str, cluster_id: str) -> AgentIdentity:
        """Raises IdentityError where the certificate is not for this key and this cluster."""
        try:
            leaf = x509.load_pem_x509_certificates(chain.encode("ascii"))[0]
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
            public = leaf.public_key()
        except Exception as error:  # the library raises of many kinds for what a stranger may send
            raise IdentityError("it is no certificate of an agent") from error
        if public != key.public_key():
            raise IdentityError("the certificate is not for the agent's key")
        if uris != [cluster_uri(cluster, cluster_id)]:
            raise IdentityError(f"the certificate is not for cluster {cluster!r} with the id {cluster_id}")
        times = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        return cls(key, chain, leaf.public_bytes(Encoding.DER), *times)

    def pem(self) -> bytes:
        """Key and certificate, for the agent's own file and its TLS."""
        return key_pem(self.key) + self.chain.encode("ascii")


class IdentityFile:
    """Where the identity is kept: in `directory`, or, without one, nowhere (it is then asked for at each start)."""

    def __init__(self, directory: Path | None) -> None:
        """Raises ConfigError where others may write to the directory."""
        self._directory = directory
        self._asking: ec.EllipticCurvePrivateKey | None = None
        if directory is not None:
            own_directory(directory)

    def load(self, cluster: str, cluster_id: str) -> AgentIdentity | None:
        """The identity that is there, expired or not. Raises ConfigError: it is damaged, open to others, or of another
        cluster; it is never used then, and never overwritten.
        """
        if self._directory is None:
            return None
        path = self._directory / IDENTITY
        pem = read_private(path)
        if pem is None:
            return None
        return identity_in(str(path), pem, cluster, cluster_id, "move the file away, and it is enrolled anew")

    def save(self, identity: AgentIdentity) -> None:
        """Keep it in the place of the one before. Raises OSError."""
        self._asking = None
        if self._directory is None:
            return
        write_private(self._directory / IDENTITY, identity.pem())
        (self._directory / ASKING).unlink(missing_ok=True)

    def asking_key(self) -> ec.EllipticCurvePrivateKey:
        """The key to ask with: the same one until `save`. Raises ConfigError, OSError."""
        if self._asking is None:
            self._asking = self._kept_key()
        return self._asking

    def _kept_key(self) -> ec.EllipticCurvePrivateKey:
        path = self._directory / ASKING if self._directory is not None else None
        pem = read_private(path) if path is not None else None
        if path is not None and pem is not None:
            return _read_key(str(path), pem)
        key = new_key()
        if path is not None:
            write_private(path, key_pem(key))
        return key


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8, not encrypted: whoever can read the agent's files is the agent."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def identity_in(where: str, pem: bytes, cluster: str, cluster_id: str, rid: str) -> AgentIdentity:
    """Key and certificate as `AgentIdentity.pem` gave them. Raises ConfigError, which says where they are, and `rid`:
    what to do about it.
    """
    key = _read_key(where, pem, rid)
    text = pem.decode("ascii", "replace")
    try:
        return AgentIdentity.of(key, text[max(text.find(_BEGIN), 0) :], cluster, cluster_id)
    except IdentityError as error:
        raise ConfigError(f"{where}: {error}; if this agent is to serve cluster {cluster!r}, {rid}") from error


def _read_key(
    where: str, pem: bytes, rid: str = "move it away, and the agent asks for a new certificate"
) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    except Exception:  # noqa: S110 -- never chained: its text may hold a part of the key
        pass
    raise ConfigError(f"{where} is damaged: {rid}")
