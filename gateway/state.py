"""The state directory: what a server keeps, and the kulvert command works on beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from auth.pki import CertificateAuthority
from auth.statefile import create_private, read_private, write_private
from auth.tokens import TokenSigner

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

    def authority(self, now: float) -> CertificateAuthority:
        """The platform's CA, made at the first use."""
        return CertificateAuthority.load_or_create(self.directory / "ca.pem", "kulvert", now)

    def signer(self) -> TokenSigner:
        """Signs Kulvert's own tokens, with a key made at the first use."""
        path = self.directory / "token-key.pem"
        if (pem := read_private(path)) is None:
            create_private(path, _new_key())
            pem = read_private(path) or b""
        key = serialization.load_pem_private_key(pem, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return TokenSigner(ISSUER, AUDIENCE, key)

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
            return self.authority(now).certificate_pem


def _new_key() -> bytes:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(*form)
