"""The state directory: what a server keeps, and the kulvert command works on beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from auth.agentpki import AUTHORITY
from auth.authorityfile import AuthorityFile
from auth.pki import CertificateAuthority
from auth.statefile import read_private, write_private
from auth.tokenkeysfile import KeyFile
from auth.tokens import TokenSigner

REPLICAS = "kulvert-replicas"
ISSUER = "https://kulvert.dev"
AUDIENCE = "kulvert"
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class State:
    """The state directory: what a server keeps, and the kulvert command writes to."""

    directory: Path

    @property
    def registry(self) -> Path:
        """Clusters and join tokens."""
        return self.directory / "clusters.db"

    @property
    def grants(self) -> Path:
        """Who may reach which cluster."""
        return self.directory / "grants.yaml"

    @property
    def users(self) -> AuthorityFile:
        """The platform's CA: of users' certificates, and of the server's own where none is configured."""
        return AuthorityFile(self.directory / "ca.pem", "kulvert")

    @property
    def agents(self) -> AuthorityFile:
        """The agents' CA: another one than the users', so that neither passes for the other."""
        return AuthorityFile(self.directory / "agents-ca.pem", AUTHORITY)

    @property
    def replicas(self) -> AuthorityFile:
        """The CA that replicas know each other by."""
        return AuthorityFile(self.directory / "replicas-ca.pem", REPLICAS)

    def authority(self, now: float) -> CertificateAuthority:
        """The platform's CA, made at the first use."""
        return self.users.load(now)

    def agents_authority(self, now: float) -> CertificateAuthority:
        """The agents' CA, made at the first use."""
        return self.agents.load(now)

    def replicas_authority(self, now: float) -> bytes:
        """Certificates and keys (PEM) of the authority that replicas know each other by, made at the first use."""
        self.replicas.load(now)
        return b"".join(one.to_pem() for one in self.replicas.all())

    @property
    def token_keys(self) -> KeyFile:
        """The keys that sign Kulvert's own tokens."""
        return KeyFile(self.directory / "token-keys.json", self.directory / "token-key.pem")

    def signer(self, now: float) -> TokenSigner:
        """Signs Kulvert's own tokens, with the key that is active now. :raises StateFileError: see `KeyFile.load`."""
        ring = self.token_keys.load(ISSUER, now)
        return TokenSigner(ring.issuer, AUDIENCE, ring.signing(now).private)

    def next_epoch(self, now: float) -> int:
        """A number for this holding, higher than all before it, even where the clock was set back."""
        path = self.directory / "epoch"
        last = int(read_private(path) or b"0")
        epoch = max(last + 1, int(now * 1000))
        write_private(path, str(epoch).encode())
        return epoch

    @property
    def server_certificate_file(self) -> Path:
        """The chain and key of the certificate that the server makes for itself."""
        return self.directory / "server.pem"

    @property
    def server_ca(self) -> Path:
        """What clients must trust to reach the server. It is there from the server's first start on; empty: what
        their systems trust.
        """
        return self.directory / "server-ca.crt"

    def issue_server_certificate(self, names: tuple[str, ...], now: float) -> None:
        """A certificate by the platform's CA: at each start, and when two thirds of its life are over."""
        issued = self.authority(now).issue_server(names, now, 397 * DAY)
        write_private(self.server_certificate_file, issued.certificate + issued.key)

    def trusted(self, now: float) -> bytes:
        """What is in `server_ca`; before the first start, what will be there without certificates of one's own."""
        try:
            return self.server_ca.read_bytes()  # no secret: it may have been made readable to all
        except FileNotFoundError:
            return self.authority(now).trusted_pem
