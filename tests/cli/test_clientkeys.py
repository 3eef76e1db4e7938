"""A key of the user's own, and what the gateway may give for it."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from auth.pki import CertificateAuthority
from cli.clientkeys import good_until, new_key
from cli.failures import Failed

NOW = 1_800_000_000.0


def test_a_request_says_nothing_of_who_asks_and_is_signed() -> None:
    made = new_key()
    request = x509.load_pem_x509_csr(made.request)
    assert request.is_signature_valid
    assert list(request.subject) == []
    assert isinstance(request.public_key(), ec.EllipticCurvePublicKey)
    assert new_key().key != made.key
    assert made.key.decode() not in repr(made)


def test_a_certificate_for_its_key_is_good_until_its_end() -> None:
    issued = CertificateAuthority.create("test", NOW).issue_client("ada", (), NOW, 3_600)
    assert good_until(issued.certificate, issued.key, NOW) == NOW + 3_600


def test_another_keys_or_an_old_certificate_is_not_used() -> None:
    issued = CertificateAuthority.create("test", NOW).issue_client("ada", (), NOW, 3_600)
    with pytest.raises(Failed, match="another key"):
        good_until(issued.certificate, new_key().key, NOW)
    for moment in (NOW + 3_601, NOW - 3_600):
        with pytest.raises(Failed, match="not valid now"):
            good_until(issued.certificate, issued.key, moment)
    for chain in (b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(Failed, match="holds no certificate"):
            good_until(chain, issued.key, NOW)
