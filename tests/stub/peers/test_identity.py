"""Who a replica is: the authority that they share, the URI in their certificates, and new ones in time."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from auth.pki import CertificateAuthority
from stub.peers import identity as identities
from stub.peers.identity import (
    AUTHORITY,
    LIFETIME,
    PeerIdentity,
    PeerIdentityError,
    authority_of,
    named_by,
    replica_uri,
)
from tests.stub.peers.replicas import authority


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, bytes]:
    """The certificates (DER) that each end has verified of the other. Raises ssl.SSLError."""
    pipes = [ssl.MemoryBIO() for _ in range(4)]
    s = server.wrap_bio(pipes[0], pipes[1], server_side=True)
    c = client.wrap_bio(pipes[2], pipes[3])
    for _ in range(4):
        for end in (c, s):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
            pipes[0].write(pipes[3].read())
            pipes[2].write(pipes[1].read())
    shown = c.getpeercert(binary_form=True), s.getpeercert(binary_form=True)
    assert shown[0] is not None
    assert shown[1] is not None
    return shown[0], shown[1]


def test_two_replicas_know_each_other(replicas_ca: bytes) -> None:
    a, b = PeerIdentity(replicas_ca, "kulvert-0", time.time), PeerIdentity(replicas_ca, "kulvert-1", time.time)
    assert [named_by(der) for der in handshake(a.server, b.client)] == ["kulvert-0", "kulvert-1"]


def test_replicas_of_two_installations_do_not(replicas_ca: bytes) -> None:
    a, b = PeerIdentity(replicas_ca, "a", time.time), PeerIdentity(authority(), "b", time.time)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(a.server, b.client)


def test_a_client_shows_no_servers_certificate_nor_the_other_way_round(replicas_ca: bytes) -> None:
    a, b = PeerIdentity(replicas_ca, "a", time.time), PeerIdentity(replicas_ca, "b", time.time)
    (served, shown) = handshake(a.server, b.client)
    purposes = [
        [usage._name for usage in x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
            x509.ExtendedKeyUsage).value]
        for der in (served, shown)
    ]  # fmt: skip
    assert purposes == [["serverAuth"], ["clientAuth"]]


def test_a_certificate_that_has_expired_counts_no_more(replicas_ca: bytes) -> None:
    old = PeerIdentity(replicas_ca, "old", lambda: time.time() - 2 * LIFETIME)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(old.server, PeerIdentity(replicas_ca, "b", time.time).client)


async def test_certificates_are_new_before_they_expire(replicas_ca: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "LOOK", 0.01)
    now = [time.time() - LIFETIME + 100]
    a, b = PeerIdentity(replicas_ca, "a", lambda: now[0]), PeerIdentity(replicas_ca, "b", time.time)
    first = handshake(a.server, b.client)[0]
    running = asyncio.create_task(a.run())
    await asyncio.sleep(0.05)
    assert handshake(a.server, b.client)[0] == first
    now[0] += LIFETIME / 2
    await asyncio.sleep(0.05)
    second = handshake(a.server, b.client)[0]
    assert second != first
    assert named_by(second) == "a"
    assert _serial(handshake(b.server, a.client)[1]) != _serial(second)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_certificates_of_a_clock_that_was_wrong_are_made_anew(
    replicas_ca: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "LOOK", 0.01)
    now = [time.time() + 3600]
    a, b = PeerIdentity(replicas_ca, "a", lambda: now[0]), PeerIdentity(replicas_ca, "b", time.time)
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        handshake(a.server, b.client)
    running = asyncio.create_task(a.run())
    now[0] = time.time()
    await asyncio.sleep(0.05)
    first = handshake(a.server, b.client)[0]
    now[0] -= 30  # as clocks are set a little now and then
    await asyncio.sleep(0.05)
    assert handshake(a.server, b.client)[0] == first
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _serial(der: bytes) -> int:
    return x509.load_der_x509_certificate(der).serial_number


def test_an_authority_that_a_clock_ahead_has_made_is_everybodys() -> None:
    ca = CertificateAuthority.create(AUTHORITY, time.time() + 3600).to_pem()
    a, b = PeerIdentity(ca, "a", time.time), PeerIdentity(ca, "b", time.time)
    assert named_by(handshake(a.server, b.client)[0]) == "a"


@pytest.mark.parametrize("identity", ["", "a b", "a/b", "-a", "a\n", "x" * 254, "é"], ids=range(7))
def test_what_is_no_identity_is_told(replicas_ca: bytes, identity: str) -> None:
    with pytest.raises(PeerIdentityError, match="identity"):
        PeerIdentity(replicas_ca, identity, time.time)


def test_a_long_identity_is_whole_in_the_uri(replicas_ca: bytes) -> None:
    name = "x" * 253
    a, b = PeerIdentity(replicas_ca, name, time.time), PeerIdentity(replicas_ca, "b", time.time)
    assert named_by(handshake(a.server, b.client)[0]) == name
    assert replica_uri(name).endswith("/" + name)


def test_an_authority_that_is_none_is_told_without_its_key(replicas_ca: bytes) -> None:
    mixed = authority_of(replicas_ca).certificate_pem + authority().partition(b"-----END CERTIFICATE-----\n")[2]
    for pem in (b"", b"x", authority_of(replicas_ca).certificate_pem, mixed):
        with pytest.raises(PeerIdentityError) as raised:
            PeerIdentity(pem, "a", time.time)
        assert "PRIVATE" not in str(raised.value)


def test_other_certificates_of_the_authority_name_no_replica(replicas_ca: bytes) -> None:
    ca = authority_of(replicas_ca)
    for issued in (ca.issue_server(["kulvert"], time.time(), 9.0), ca.issue_client("a", [], time.time(), 9.0)):
        der = x509.load_pem_x509_certificate(issued.certificate)
        with pytest.raises(PeerIdentityError):
            named_by(ca_der(der))
    with pytest.raises(PeerIdentityError):
        named_by(b"no certificate")


@pytest.mark.parametrize(
    "uris", [["kulvert://cluster/a/b"], ["kulvert://replica/"], ["kulvert://replica/a", "kulvert://replica/b"]], ids=str
)
def test_a_uri_is_one_and_whole(replicas_ca: bytes, uris: list[str]) -> None:
    ca: CertificateAuthority = authority_of(replicas_ca)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    key = ca.key.public_key()
    made = ca.sign(key, x509.Name([]), ExtendedKeyUsageOID.CLIENT_AUTH, time.time(), 9.0, names)
    with pytest.raises(PeerIdentityError):
        named_by(ca_der(made))


def ca_der(certificate: x509.Certificate) -> bytes:
    """DER."""
    return certificate.public_bytes(Encoding.DER)


def test_the_replicas_authority_is_replaced_one_replica_after_the_other(replicas_ca: bytes) -> None:
    new = authority()
    steps = [replicas_ca, replicas_ca + new, new + replicas_ca, new]
    for before, after in itertools.pairwise(steps):
        one, other = PeerIdentity(before, "a", time.time), PeerIdentity(after, "b", time.time)
        assert [named_by(der) for der in handshake(one.server, other.client)] == ["a", "b"]
        assert [named_by(der) for der in handshake(other.server, one.client)] == ["b", "a"]
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(PeerIdentity(new, "a", time.time).server, PeerIdentity(replicas_ca, "b", time.time).client)
