"""Tokens in logs: planted secrets are in no log at any level, no audit record, no error, no metric label.

It runs last of its kind (by its fixture, it makes traffic of every sort itself), and reads everything that all the
processes of all threat tests have printed, at debug level.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from auth.pki import CertificateAuthority
from tests.e2e.threats.conftest import Attach, Connect
from tests.support.cluster_api import until
from tests.support.credentials_zoo import Shown, Zoo
from tests.support.hostile_agent import RESPONSE_END, data, head
from tests.support.hostile_client import connected, exchanged, request, upgrade
from tests.support.hostile_platform import AGENT_TOKEN, RECORDED, ThreatPlatform, client_context
from tests.support.processes import Process
from tests.support.recording_apiserver import RecordingApiServer

PLANTED = {
    name: f"planted-{name}-5f1e9c77"
    for name in (
        "authorization", "basic", "cookie", "query", "access", "bearer", "body", "answer", "header", "path-of-proxy",
        "impersonated", "set-cookie", "location", "forwarded", "trailer", "stream",
    )
}  # fmt: skip


def spellings(secret: str) -> Iterator[bytes]:
    """How a secret could be written down."""
    raw = secret.encode()
    yield raw
    yield raw.hex().encode()
    yield raw[-8:].hex(" ").encode()  # what a library's debug log shows of a frame's end
    yield raw[-8:].hex().encode()
    yield quote(secret, safe="").encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 :].rstrip(b"=")[:-1]
        yield encoded
        yield encoded.replace(b"+", b"-").replace(b"/", b"_")


@pytest.fixture
async def told(
    threat_platform: ThreatPlatform, connect: Connect, attach: Attach, recorder: RecordingApiServer, zoo: Zoo
) -> list[bytes]:
    """Everything that users were answered, after every secret has been used in every way that succeeds or fails."""
    p, answers = PLANTED, list[bytes]()
    bearer = base64.urlsafe_b64encode(p["bearer"].encode()).rstrip(b"=").decode()
    basic = base64.b64encode(f"admin:{p['basic']}".encode()).decode()
    lines = (
        f"Cookie: session={p['cookie']}", f"X-Api-Key: {p['header']}", f"X-Forwarded-Access-Token: {p['forwarded']}",
        f"Referer: https://localhost/?token={p['query']}",
    )  # fmt: skip
    query = f"?token={p['query']}&access_token={p['access']}&watch=false&%74oken={p['query']}&x;token={p['query']}"
    proxy = f"/clusters/{RECORDED}/api/v1/namespaces/x/services/y/proxy/z"
    targets = (
        f"/clusters/{RECORDED}/api{query}", f"/clusters/alpha/api{query}", proxy + query,
        f"/clusters/nowhere/api{query}", f"/version{query}", f"/metrics{query}", f"/healthz{query}", f"/nowhere{query}",
        f"/clusters/alpha/..{query}", f"/clusters/rogue-0/api{query}",
    )  # fmt: skip
    credentials = (f"Authorization: Bearer {p['authorization']}", f"Authorization: Basic {basic}", "X-None: 1")
    protocol = f"Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{bearer}, v5.channel.k8s.io"
    answer = (
        f"HTTP/1.1 200 OK\r\nSet-Cookie: a={p['set-cookie']}\r\nLocation: https://evil.test/?{p['location']}\r\n"
        f"Content-Length: {len(p['answer'])}\r\n\r\n{p['answer']}"
    ).encode()
    broken = (
        "GET /x\x00 HTTP/1.1\r\nHost: localhost", "GET /x HTTP/1.1\r\nHost: a\r\nHost: b",
        "BREW /x HTTP/1.1\r\nHost: localhost",
        "GET /x HTTP/1.1\r\nHost: localhost\r\nX : y", "GET /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: x",
    )  # fmt: skip
    with recorder.answering(answer):
        for user in ("ada", "", "eve"):
            for credential in credentials:
                for target in targets:
                    for asked in (
                        request(target, credential, *lines, method="POST", body=p["body"].encode()),
                        upgrade(target, credential, *lines, protocol),
                        request(target, credential, *lines, f"Impersonate-User: {p['impersonated']}"),
                        request(
                            target, credential, f"X-Client-Cert: {p['header']}", f"Impersonate-Uid: {p['impersonated']}"
                        ),
                    ):
                        async with connect(*((user, "nobody") if user == "eve" else (user,))) as client:
                            found = await exchanged(client, asked)
                            if found is not None and not found.body.endswith(p["answer"].encode()):
                                answers.append(found.head + found.body)
            for head_lines in broken:
                async with connect(user) as client:
                    asked = "\r\n".join([head_lines, *credentials, *lines, protocol, "", ""]).encode("latin-1")
                    found = await exchanged(client, asked)
                    answers.append(found.head + found.body if found else b"")
    for credential in credentials:
        await _at_the_agents_door(threat_platform, answers, [credential, *lines, protocol])
    await _by_a_hostile_agent(attach, connect, answers)
    await _by_every_authenticator(threat_platform, zoo, answers)
    async with connect() as client:
        found = await exchanged(client, request("/metrics"))
        assert found is not None
        assert b"kulvert" in found.body
        answers.append(found.body)
    return answers


async def _at_the_agents_door(platform: ThreatPlatform, answers: list[bytes], lines: list[str]) -> None:
    for target in ("/kulvert/v1/link", f"/x?token={PLANTED['query']}"):
        async with connected(platform.agents_port, platform.context()) as client:
            await client.say(upgrade(target, *lines))
            answers.append(await client.rest())


async def _by_every_authenticator(platform: ThreatPlatform, zoo: Zoo, answers: list[bytes]) -> None:
    """Credentials that are good, and those of the hub and of other clusters that are for somebody else."""
    zoo.shown = [*zoo.good().values(), *map(Shown.bearer, (*zoo.hub_tokens.values(), *zoo.foreign_tokens.values()))]
    for one in zoo.shown:
        context = client_context(platform.ca, one.pair, platform.directory)
        for target in ("/clusters/alpha/api", "/clusters/nowhere/api", "/version", "/metrics", "/nowhere"):
            async with connected(platform.port, context) as client:
                found = await exchanged(client, request(target, *one.lines))
                assert found is not None
                answers.append(found.head + found.body)


async def _by_a_hostile_agent(attach: Attach, connect: Connect, answers: list[bytes]) -> None:
    """Frames whose last bytes are secrets, in answers that are good and that are not."""
    for bad in (False, True):
        async with attach() as (agent, cluster), connect() as client:
            await client.say(request(f"/clusters/{cluster}/x", method="POST", body=PLANTED["stream"].encode()))
            x = (await agent.request()).id
            agent.say(head(x, 200, f"x-a: {PLANTED['trailer']}".encode() + b"\r" * bad))
            agent.say(data(x, PLANTED["stream"].encode()), data(x, PLANTED["stream"].encode(), end=True))
            agent.say(head(x, 500, b"x-a: " + PLANTED["trailer"].encode(), flags=RESPONSE_END))
            found = await exchanged(client, b"", "POST")
            if bad:
                assert found is not None
                answers.append(found.head + found.body)


async def test_tokens_in_logs(
    threat_platform: ThreatPlatform, told: list[bytes], recorder: RecordingApiServer, zoo: Zoo
) -> None:
    assert any(PLANTED["body"].encode() in one.body for one in recorder.requests), "the traffic never got through"
    secrets = PLANTED | {"the agent's token": AGENT_TOKEN, "a user's token": threat_platform.token().rpartition(".")[0]}
    for path in threat_platform.directory.glob("*.token"):
        secrets[path.name] = path.read_text().partition(".")[2]
    secrets |= {f"credential {number}": one for number, shown in enumerate(zoo.shown) for one in shown.secrets}
    places = {
        path.name: path.read_bytes() for path in {*threat_platform.logs, threat_platform.audit_log} if path.exists()
    }
    places |= {f"answer {number}": answer for number, answer in enumerate(told)}
    assert b"\0debug\0" in Path(f"/proc/{threat_platform.server().pid}/cmdline").read_bytes() + b"\0"
    assert b"agent attached" in places["server.log"]
    assert places["audit.log"].count(b"token=***") > 10
    found = [
        (name, place)
        for name, secret in secrets.items()
        for place, text in places.items()
        if any(spelling in text for spelling in spellings(secret))
    ]
    assert found == []


async def test_a_kubeconfig_or_join_token_that_cannot_be_read_is_not_quoted(
    threat_platform: ThreatPlatform, recorder: RecordingApiServer, recorded_ca: CertificateAuthority
) -> None:
    secret = "planted-in-a-broken-file-81c3"
    config = threat_platform.recorded_config("quoted", recorder.port, recorded_ca.certificate_pem)
    directory = threat_platform.directory
    kubeconfig, token = directory / "quoted.kubeconfig", directory / "quoted.token"
    good, good_token, good_config = kubeconfig.read_text(), token.read_text(), config.read_text()
    broken: dict[str, tuple[Path, str]] = {
        "no YAML": (kubeconfig, f"users: [token: {secret}\n- {{"),
        "a tab": (kubeconfig, f"token:\t\t- {secret}: {{"),
        "a text": (kubeconfig, secret),
        "a token with a line break": (kubeconfig, good.replace(AGENT_TOKEN, f'"{secret}\\nX: y"')),
        "a password": (kubeconfig, good.replace("token:", f"password: {secret}\n    token:")),
        "a server with a password": (kubeconfig, good.replace("https://", f"https://admin:{secret}@")),
        "no join token": (token, secret),
        "a join token with a blank": (token, f"kvt_{secret} x.{secret}"),
        "an unknown setting": (config, f"{good_config}\nnothing: {secret}\n"),
        "a join token in the wrong place": (config, f"{good_config}\nagent: [{secret}]\n"),
        "a broken configuration": (config, f"{good_config}\njoinToken: {{{secret}\n"),
    }
    for name, (path, text) in broken.items():
        for one, content in ((kubeconfig, good), (token, good_token), (config, good_config), (path, text)):
            one.write_text(content)
        process = threat_platform.launch_agent("quoted", config)

        async def ended(found: Process = process) -> bool:
            return found.exited is not None

        await until(ended, f"an agent with {name} to end", 10)
        await threat_platform.stop_agent("quoted")
        said = process.log.read_text()
        assert process.exited, name
        assert said, name
        assert not re.search(secret, said), (name, said)
        assert "Traceback" not in said, (name, said)
