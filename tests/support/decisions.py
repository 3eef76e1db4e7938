"""What decisions are tried with: a signer of Kulvert's tokens, and a certificate as a listener sees it."""

from __future__ import annotations

import ssl

from cryptography.hazmat.primitives.asymmetric import ec

from auth.tokens import TokenSigner


def signer() -> TokenSigner:
    """With a key of its own."""
    return TokenSigner("https://kulvert.test", "kulvert", ec.generate_private_key(ec.SECP256R1()))


def der(pem: bytes) -> bytes:
    """A certificate as TLS gives it."""
    return ssl.PEM_cert_to_DER_cert(pem.decode())
