"""TLS is verified on every hop: a wrong CA, a wrong name and an expired certificate are refused on each of them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from auth.pki import CertificateAuthority, Issued
from tests.support.cluster_api import until
from tests.support.hostile_client import connected, request
from tests.support.hostile_platform import (
    AGENT_TOKEN,
    ThreatPlatform,
    client_context,
    server_context,
    write_recorded_kubeconfig,
)
from tests.support.hostile_stub import hostile_stub
from tests.support.processes import Process
from tests.support.recording_apiserver import RecordingApiServer

DAY = 86_400.0


def _bad(right: CertificateAuthority, name: str) -> dict[str, Issued]:
    """Certificates that nobody may accept for `name`."""
    now = time.time()
    impostor = CertificateAuthority.create("kulvert", now)  # the name of the platform's CA, and another key
    return {
        "a wrong CA": impostor.issue_server([name], now, DAY),
        "a wrong name": right.issue_server(["elsewhere.test"], now, DAY),
        "an expired certificate": right.issue_server([name], now - 2 * DAY, DAY),
        "a user's certificate": right.issue_client(name, [], now, DAY),
    }


async def _says(process: Process, words: str) -> None:
    async def said() -> bool:
        return words in process.log.read_text(errors="replace")

    await until(said, f"{process.name} to say {words!r}", 15)


# --- client → gateway


async def test_client_to_gateway_a_wrong_ca_and_a_wrong_name(threat_platform: ThreatPlatform) -> None:
    other = client_context(threat_platform.authority.certificate_pem, None, threat_platform.directory)
    for port in (threat_platform.port, threat_platform.agents_port):
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connected(port, other):
                pass
        for name in ("elsewhere.test", "kulvert.test", "a.b.kulvert.test"):
            with pytest.raises(ssl.SSLCertVerificationError):
                async with connected(port, threat_platform.context("ada"), name):
                    pass


async def test_client_to_gateway_an_expired_certificate(tmp_path: Path) -> None:
    """The gateway shows what it was given; a client that verifies does not go on."""
    now = time.time()
    authority = CertificateAuthority.create("outside", now)
    issued = authority.issue_server(["localhost"], now - 2 * DAY, DAY)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(issued.certificate)
    key.touch(mode=0o600)
    key.write_bytes(issued.key)
    flags = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    async with ThreatPlatform(tmp_path / "platform", *flags) as served:
        context = client_context(authority.certificate_pem, None, tmp_path)
        for port in (served.port, served.agents_port):
            with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
                async with connected(port, context):
                    pass


async def test_gateway_to_client_a_users_certificate_is_checked(threat_platform: ThreatPlatform) -> None:
    """By another CA, of the same name too; expired; made for a server; and of nobody's making."""
    now, right = time.time(), threat_platform.platform_authority
    impostor = CertificateAuthority.create("kulvert", now)
    chained = right.issue_client("ada", ["kulvert:admins"], now, DAY)
    cases = {
        "another CA": threat_platform.authority.issue_client("ada", ["kulvert:admins"], now, DAY),
        "another CA of the same name": impostor.issue_client("ada", ["kulvert:admins"], now, DAY),
        "expired": right.issue_client("ada", ["kulvert:admins"], now - 2 * DAY, DAY),
        "a server's": right.issue_server(["ada"], now, DAY),
        "not a CA's, signed by a user's key": _signed_by_a_user(chained, now),
    }
    for name, issued in cases.items():
        context = client_context(threat_platform.ca, issued, threat_platform.directory)
        try:
            async with connected(threat_platform.port, context) as client:
                await client.say(request("/clusters/alpha/api"))
                status = (await client.answer()).status
        except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
            continue
        assert status == 401, name


def _signed_by_a_user(user: Issued, now: float) -> Issued:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_private_key(user.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    pretended = CertificateAuthority(x509.load_pem_x509_certificate(user.certificate), key)
    issued = pretended.issue_client("admin", ["kulvert:admins"], now, DAY)
    return Issued(issued.certificate + user.certificate, issued.key)


# --- agent → stub


async def test_agent_to_stub_refuses_each(
    threat_platform: ThreatPlatform, recorder: RecordingApiServer, recorded_ca: CertificateAuthority
) -> None:
    """No hello is said, and so no proof, no token's id, no cluster's name."""

    async def refused(number: int, name: str, issued: Issued) -> None:
        async with hostile_stub(server_context(issued, threat_platform.directory)) as stub:
            agent = f"stub-tls-{number}"
            config = threat_platform.recorded_config(
                agent, recorder.port, recorded_ca.certificate_pem, f"https://localhost:{stub.port}"
            )
            process = threat_platform.launch_agent(agent, config)
            try:
                await _says(process, "its certificate was refused")
            finally:
                await threat_platform.stop_agent(agent)
            assert stub.hellos == 0, name

    async with asyncio.TaskGroup() as group:
        for number, (name, issued) in enumerate(_bad(threat_platform.platform_authority, "localhost").items()):
            group.create_task(refused(number, name, issued))


# --- agent → API server


@pytest.fixture
def bad_servers(recorded_ca: CertificateAuthority, tmp_path: Path) -> Iterator[dict[str, RecordingApiServer]]:
    """API servers that must be refused."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(RecordingApiServer(server_context(issued, tmp_path)))
            for name, issued in _bad(recorded_ca, "127.0.0.1").items()
        }


async def test_agent_to_apiserver_refuses_each(
    threat_platform: ThreatPlatform, bad_servers: dict[str, RecordingApiServer], recorded_ca: CertificateAuthority
) -> None:
    """Not a byte of the agent's token leaves, and it is never attached."""

    async def refused(number: int, name: str, server: RecordingApiServer) -> None:
        agent = f"api-tls-{number}"
        config = threat_platform.recorded_config(agent, server.port, recorded_ca.certificate_pem)
        process = threat_platform.launch_agent(agent, config)
        try:
            await _says(process, "cannot read the cluster's id")
        finally:
            await threat_platform.stop_agent(agent)
        text = process.log.read_text()
        assert "certificate" in text.lower(), (name, text)
        assert "ready: " not in text
        assert AGENT_TOKEN not in text
        assert server.handshakes_failed
        assert not server.own + server.requests + server.strays

    async with asyncio.TaskGroup() as group:
        for number, (name, server) in enumerate(bad_servers.items()):
            group.create_task(refused(number, name, server))


async def test_there_is_no_switch_for_it(
    threat_platform: ThreatPlatform, recorder: RecordingApiServer, recorded_ca: CertificateAuthority
) -> None:
    """clusternet, remotedialer, cluster-gateway: an inner hop whose verification could be turned off."""
    config = threat_platform.recorded_config("no-switch", recorder.port, recorded_ca.certificate_pem)
    path = threat_platform.directory / "no-switch.kubeconfig"
    for value in (True, "true"):
        write_recorded_kubeconfig(path, recorder.port, b"", {"insecure-skip-tls-verify": value})
        process = threat_platform.launch_agent("no-switch", config)
        await _says(process, "insecure-skip-tls-verify is refused")
        await threat_platform.stop_agent("no-switch")
        assert AGENT_TOKEN not in process.log.read_text()
    for command in ("agent", "serve"):
        process = threat_platform._run("help", command, "--help")
        await _says(process, "--help")
        await threat_platform._end("help", 15)
        told = process.log.read_text().lower()
        assert not [word for word in ("insecure", "skip-tls", "no-verify", "skip-verify") if word in told]


async def test_plain_http_is_no_way_in(threat_platform: ThreatPlatform) -> None:
    for port in (threat_platform.port, threat_platform.agents_port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(12):
            try:
                said = await reader.read()
            except ConnectionError:
                said = b""
        writer.close()
        assert b"HTTP" not in said
