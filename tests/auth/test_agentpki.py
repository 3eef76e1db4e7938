"""Agents' certificates name the cluster that the platform decided on, and nothing else passes for one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from auth.agentpki import AUTHORITY, AgentCertificateError, IssuedToAgent, Verifier, issue, read_request
from auth.pki import CertificateAuthority
from tunnel.enrolment import cluster_uri

NOW = 1_800_000_000.0
UID = "0b1c2d3e-0000-1111-2222-333344445555"
DAY = 86_400.0
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create(AUTHORITY, NOW)


def csr(key: Key, *uris: str, user: str = "kulvert:agent:edge") -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def issued(authority: CertificateAuthority, cluster: str = "edge", lifetime: float = DAY) -> IssuedToAgent:
    return issue(authority, ec.generate_private_key(ec.SECP256R1()).public_key(), cluster, UID, NOW, lifetime)


P256, P384, P521 = (ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()))


@pytest.mark.parametrize("key", [P256, P384, ed25519.Ed25519PrivateKey.generate()])
def test_what_is_issued_to_a_request_is_read_again(authority: CertificateAuthority, key: Key) -> None:
    request = read_request(csr(key, cluster_uri("edge", UID)), "edge", UID)
    made = issue(authority, request.key, "edge", UID, NOW, DAY)
    shown = Verifier(authority.certificate).read(der(made.pem), NOW)
    assert (shown.cluster, shown.cluster_id, shown.serial) == ("edge", UID, made.serial)
    assert (shown.expires, shown.key) == (made.expires, key.public_key()) == (NOW + DAY, key.public_key())
    assert len(request.fingerprint) == 64


def test_a_request_for_another_cluster_than_its_agent_says_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    mine, other = cluster_uri("edge", UID), cluster_uri("hub", UID)
    for uris in ((), (other,), (mine, other), (cluster_uri("edge", "u2"),)):
        with pytest.raises(AgentCertificateError):
            read_request(csr(key, *uris), "edge", UID)


@pytest.mark.parametrize(
    ("name", "uid"),
    [("edge", "x;reboot"), ("edge", "$(id)"), ("edge", "a b"), ("edge", "a/b"), ("Edge", UID), ("a/b", UID)],
)
def test_a_request_for_what_is_no_cluster_is_refused_before_anybody_is_shown_it(name: str, uid: str) -> None:
    with pytest.raises(AgentCertificateError, match="malformed"):
        read_request(csr(ec.generate_private_key(ec.SECP256R1()), cluster_uri(name, uid)), name, uid)


def test_requests_that_are_none_or_of_a_strange_key_are_refused() -> None:
    uri = cluster_uri("edge", UID)
    good = csr(ec.generate_private_key(ec.SECP256R1()), uri)
    other = csr(ec.generate_private_key(ec.SECP256R1()), uri)
    forged = good.splitlines()[:4] + other.splitlines()[4:]
    strange = csr(rsa.generate_private_key(65537, 2048), uri), csr(P521, uri)
    for bad in ("", "x", good[:200], "é" + good, good * 20, "\n".join(forged), *strange):
        with pytest.raises(AgentCertificateError) as refused:
            read_request(bad, "edge", UID)
        assert "MII" not in str(refused.value)


def test_a_request_for_a_key_that_its_sender_does_not_hold_is_refused() -> None:
    der_form = bytearray(
        x509.load_pem_x509_csr(csr(P256, cluster_uri("edge", UID)).encode()).public_bytes(Encoding.DER)
    )
    der_form[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der_form)).public_bytes(Encoding.PEM).decode()
    with pytest.raises(AgentCertificateError, match="not signed by its own key"):
        read_request(forged, "edge", UID)


@pytest.mark.parametrize(
    ("purpose", "ca"), [(ExtendedKeyUsageOID.SERVER_AUTH, False), (ExtendedKeyUsageOID.CLIENT_AUTH, True)]
)
def test_a_certificate_of_the_authority_for_another_use_is_no_agents(
    authority: CertificateAuthority, purpose: x509.ObjectIdentifier, ca: bool
) -> None:
    uri = x509.UniformResourceIdentifier(cluster_uri("edge", UID))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kulvert:agent:edge")]))
        .issuer_name(authority.certificate.subject)
        .public_key(P256.public_key())
        .serial_number(7)
        .not_valid_before(datetime.fromtimestamp(NOW, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW + DAY, UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    )
    made = builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(AgentCertificateError, match="no agent's"):
        Verifier(authority.certificate).read(made, NOW)


def test_a_certificate_counts_in_its_time_alone(authority: CertificateAuthority) -> None:
    verifier, made = Verifier(authority.certificate), issued(authority)
    verifier.read(der(made.pem), NOW + DAY - 1)
    for when in (NOW + DAY, NOW - 3600):
        with pytest.raises(AgentCertificateError, match="not valid at this time"):
            verifier.read(der(made.pem), when)


def test_certificates_of_another_authority_or_purpose_are_no_agents(authority: CertificateAuthority) -> None:
    verifier = Verifier(authority.certificate)
    twin = CertificateAuthority.create(AUTHORITY, NOW)
    users = authority.issue_client("ada", ["devs"], NOW, DAY).certificate.decode()
    server = authority.issue_server(["kulvert://cluster/edge/u"], NOW, DAY).certificate.decode()
    whole = der(issued(authority).pem)
    for strange in (
        der(issued(twin).pem), der(users), der(server), whole[:-1], whole + b"x", b"", b"\x30" * 9000,
        authority.certificate.public_bytes(Encoding.DER), whole.replace(b"edge", b"hub1"),
    ):  # fmt: skip
        with pytest.raises(AgentCertificateError):
            verifier.read(strange, NOW)


def test_no_certificate_outlives_its_authority_or_names_what_is_no_cluster(authority: CertificateAuthority) -> None:
    assert issued(authority, lifetime=1e9).expires <= authority.certificate.not_valid_after_utc.timestamp()
    for cluster, uid in (("Edge", UID), ("a/b", UID), ("edge", ""), ("edge", "u/1"), ("edge", "u" * 65)):
        with pytest.raises(AgentCertificateError):
            issue(authority, ec.generate_private_key(ec.SECP256R1()).public_key(), cluster, uid, NOW, DAY)


def test_what_was_read_once_is_remembered_in_bounds(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = Verifier(authority.certificate, capacity=2)
    made = [der(issued(authority).pem) for _ in range(3)]
    for one in made:
        verifier.read(one, NOW)
    monkeypatch.setattr("auth.agentpki.x509.load_der_x509_certificate", lambda _: 1 / 0)
    for one in made[1:]:
        verifier.read(one, NOW)
    with pytest.raises(AgentCertificateError):
        verifier.read(made[0], NOW)
