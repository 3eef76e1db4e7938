"""A certificate authority for one run of the sample, and the server's certificate under it.

Made afresh in memory each time: nobody should ever come to trust a sample's key.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=30)
_SKEW = timedelta(minutes=5)
_Private = ec.EllipticCurvePrivateKey
_Public = ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class ServingCertificate:
    ca_pem: bytes
    chain_pem: bytes
    key_pem: bytes

    def context(self) -> ssl.SSLContext:
        """The ssl module reads files only; they are gone before this returns."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with TemporaryDirectory(prefix="kulvert-sample-tls-") as directory:
            file = Path(directory, "serving.pem")
            file.touch(mode=0o600)
            file.write_bytes(self.key_pem + self.chain_pem)
            context.load_cert_chain(file)
        return context


def issue(hosts: Iterable[str]) -> ServingCertificate:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("Kulvert sample CA")
    ca = _ca(ca_key, ca_name)
    leaf = _leaf(ca_key, ca_name, key, hosts)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ServingCertificate(ca.public_bytes(Encoding.PEM), leaf.public_bytes(Encoding.PEM), private)


def _ca(key: _Private, name: x509.Name) -> x509.Certificate:
    builder = _builder(name, name, key.public_key(), key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign=False), critical=True)
    return builder.sign(key, SHA256())


def _leaf(ca_key: _Private, issuer: x509.Name, key: _Private, hosts: Iterable[str]) -> x509.Certificate:
    builder = _builder(_name("kulvert-sample"), issuer, key.public_key(), ca_key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(sign=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    names = x509.SubjectAlternativeName([_general(host) for host in hosts])
    return builder.add_extension(names, critical=False).sign(ca_key, SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, key: _Public, issuer_key: _Public) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now - _SKEW, now + _LIFETIME)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
    return builder.add_extension(authority, critical=False)


def _usage(*, sign: bool) -> x509.KeyUsage:
    """A server signs its handshake, an authority signs certificates; neither does anything else."""
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not sign,
        crl_sign=not sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
