"""Certificates for one cluster, on elliptic curves: RSA keys would take longer to make than etcd to start."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=365)
SERVER_NAMES = (
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.DNSName("localhost"),
    x509.DNSName("kubernetes.default.svc"),
)


@dataclass(frozen=True)
class KeyPair:
    """PEM files of one certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """The one authority of a cluster: for servers and for clients, as most clusters have it."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"{name} test CA", ())
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = _builder(subject, subject, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._cert = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.pem = self._cert.public_bytes(serialization.Encoding.PEM)
        self.file = directory / "ca.crt"
        self.file.write_bytes(self.pem)

    def server(self, name: str) -> KeyPair:
        """For a server on 127.0.0.1."""
        return self._issue(name, (), ExtendedKeyUsageOID.SERVER_AUTH, SERVER_NAMES)

    def client(self, name: str, *groups: str) -> KeyPair:
        """For a user (CN) in groups (O), as kube-apiserver reads them."""
        return self._issue(name, groups, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def _issue(
        self,
        name: str,
        groups: tuple[str, ...],
        usage: x509.ObjectIdentifier,
        names: tuple[x509.GeneralName, ...],
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name, groups), self._cert.subject, key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pair = KeyPair(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        pair.cert.write_bytes(pem)
        write_private(pair.key, private_pem(key))
        return pair


def signing_key(path: Path) -> Path:
    """The key of a cluster's service-account tokens (ES256)."""
    write_private(path, private_pem(ec.generate_private_key(ec.SECP256R1())))
    return path


def write_private(path: Path, content: bytes) -> None:
    """A file that nobody else could read, not even for a moment."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """SEC 1, which is what both crypto/tls and kube-apiserver's own key reader take."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _name(common_name: str, organisations: tuple[str, ...]) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organisations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )
