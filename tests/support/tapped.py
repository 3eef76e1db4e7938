"""A platform with a tap on its wire, to which every kind of request is sent once by every kind of credential."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from auth.pki import CertificateAuthority, Issued
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_config import write_kubeconfig
from tests.support.cluster_helpers import bind, create_pod, delete_pod, service_account_token
from tests.support.credentials_zoo import BEARER, reported
from tests.support.dex import ADA, Dex
from tests.support.hostile_client import Answer, connected, request, upgrade
from tests.support.hostile_platform import ThreatPlatform, client_context, server_context
from tests.support.kubectl import SPDY
from tests.support.platform import ADMINS, PROGRAM, Grant, Platform
from tests.support.wiretap import Wiretap

CHART = Path(__file__).parents[2] / "charts" / "agent-serviceaccounts-rbac.yaml"
POD = "/api/v1/namespaces/default/pods/tapped"
RECORDING = """
apiVersion: kulvert.dev/v1alpha1
kind: RecordingPolicy
rules:
- recording: Required
  sessions: [Terminal, Command]
"""


def grants() -> Iterator[Grant]:
    """Everybody is one reader, and the cluster's own service account itself."""
    everybody = [{"kind": "User", "name": name} for name in ("ada", "tess", "fred")]
    robot = {"kind": "ServiceAccount", "namespace": "default", "name": "robot"}
    whom = {"user": "reader", "groups": ["kulvert:admins"]}
    yield {"name": "everybody", "clusters": ["*"], "subjects": [*everybody, robot], "impersonate": whom}
    resident = {"kind": "ServiceAccount", "cluster": "alpha", "namespace": "default", "name": "resident"}
    yield {"name": "resident", "clusters": ["alpha"], "subjects": [resident], "passThrough": True}
    yield ADMINS


@dataclass
class Tapped:
    """What was planted, by its name, and everything to search."""

    platform: ThreatPlatform
    tap: Wiretap
    secrets: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[str, Answer]] = field(default_factory=list)
    through: str = ""
    """The token that is passed through."""
    managed: str = ""
    """The token that the agent had made for a holder on the server's side."""

    def plant(self, name: str, pair: Issued) -> Issued:
        """A private key: its text, and its number."""
        self.secrets |= key_texts(name, pair.key)
        return pair


def ends(name: str, token: str) -> dict[str, str]:
    """A token, and the piece of it that a shortened one would still show: the end of its signature."""
    return {name: token, f"{name}, its end": token[-32:]}


def key_texts(name: str, pem: bytes) -> dict[str, str]:
    """The lines of the private key in a file."""
    text = pem.decode().replace("\\n", "\n")  # one of our files is JSON
    begin = text.index("-----BEGIN PRIVATE KEY-----")
    lines = text[begin : text.index("-----END PRIVATE KEY-----", begin)].splitlines()
    return {f"{name}, line {number}": line for number, line in enumerate(lines) if len(line) > 40 and "-" not in line}


def settings_of(directory: Path, dex: Dex, front: CertificateAuthority, hub: Cluster) -> dict[str, Any]:
    """Every authenticator, recordings of all that is typed, and managed service accounts."""
    claims = {
        name: {"claim": claim, "prefix": ""}
        for name, claim in (("username", "preferred_username"), ("groups", "groups"))
    }
    issuer = {"url": dex.issuer, "audiences": ["kulvert"], "certificateAuthority": dex.ca_file.read_text()}
    kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}
    files = {
        "authentication.yaml": yaml.safe_dump({**kind, "jwt": [{"issuer": issuer, "claimMappings": claims}]}),
        "front.pem": front.certificate_pem.decode(),
        "recording.yaml": RECORDING,
    }
    for name, text in files.items():
        (directory / name).write_text(text)
    return {
        "authentication": {"config": str(directory / "authentication.yaml")},
        "frontProxy": {"clientCa": str(directory / "front.pem"), "allowedNames": ["front-proxy-client"]},
        "hub": {"kubeconfig": str(hub.admin_kubeconfig), "tokenReview": True},
        "recording": {"policyFile": str(directory / "recording.yaml"), "input": "true"},
        "serviceAccounts": {"enabled": "true"},
    }


async def tap(stack: AsyncExitStack, platform: Platform, directory: Path) -> Wiretap:
    """With a CA of its own, which the agent is told to trust."""
    own = CertificateAuthority.create("a load balancer", time.time())
    (directory / "tap.crt").write_bytes(own.certificate_pem)
    server = server_context(own.issue_server(["localhost"], time.time(), 86_400), directory)
    return await stack.enter_async_context(
        Wiretap(platform.agents_port, server, client_context(platform.ca, None, directory))
    )


async def attach(found: Tapped, alpha: Cluster, stack: AsyncExitStack) -> None:
    """alpha's agent, through the tap; it may make service accounts."""
    (await alpha.kubectl("apply", "-f", CHART)).check()
    stack.push_async_callback(alpha.kubectl, "delete", "-f", CHART, "--wait=false")
    ca = found.platform.directory.parent / "tap.crt"
    settings: dict[str, Any] = {"servers": [f"https://localhost:{found.tap.port}"], "caFile": str(ca)}
    await found.platform.start_agent(alpha, allowPassThrough=True, managedServiceAccounts=True, **settings)
    await reported(found.platform.state / "clusters.db", ["alpha"])
    await bind(alpha, "cluster-admin", user="system:serviceaccount:default:resident")
    directory = found.platform.directory
    found.secrets |= ends("the agent's token", (alpha.directory / "kulvert-kulvert-agent.token").read_text().strip())
    found.secrets["the join token"] = (directory / "alpha.token").read_text().partition(".")[2]
    found.secrets |= key_texts("the agent's key", (directory / "alpha.agent" / "agent.pem").read_bytes())


# --- the traffic


async def traffic(found: Tapped, alpha: Cluster, dex: Dex, front: CertificateAuthority) -> None:
    """Every kind of request by every kind of credential."""
    await create_pod(alpha, "tapped")
    alpha.log_file("default", "tapped").write_text("a line of the log\n")
    try:
        await _by_every_credential(found, alpha, dex, front)
        await _managed(found)
    finally:
        await delete_pod(alpha, "tapped")


async def _by_every_credential(found: Tapped, alpha: Cluster, dex: Dex, front: CertificateAuthority) -> None:
    platform, secrets = found.platform, found.secrets
    tokens = await dex.password_tokens(ADA)
    secrets |= ends("a refresh token", tokens["refresh_token"]) | ends("an access token", tokens["access_token"])
    found.through = await service_account_token(alpha, "default", "resident")
    bearers = {
        "an ID token": tokens["id_token"],
        "Kulvert's token": platform.token("tess"),
        "a token of the hub": await service_account_token(alpha, "default", "robot", audiences=("kulvert",)),
        "a token of the cluster": found.through,
        "a token for a vault": await service_account_token(alpha, "default", "robot", audiences=("vault",)),
        "a token of nobody's": f"planted-{os.urandom(16).hex()}",
    }
    certificate = found.plant("a client key", platform.certificate("admin", ["kulvert:admins"]))
    proxy = found.plant("a front proxy's key", front.issue_client("front-proxy-client", [], time.time(), 3600))
    for name, token in bearers.items():
        secrets |= ends(name, token)
    secrets |= {
        name: f"planted-{name}-{os.urandom(8).hex()}" for name in ("cookie", "basic", "query", "proxy-authorization")
    }
    shown: dict[str, tuple[Issued | None, tuple[str, ...]]] = {
        name: (None, (f"Authorization: Bearer {token}",)) for name, token in bearers.items()
    }
    shown["a certificate"] = certificate, ()
    shown["a certificate and a token"] = certificate, (f"Authorization: Bearer {bearers['an ID token']}",)
    shown["a front proxy"] = proxy, ("X-Remote-User: fred",)
    basic = base64.b64encode(f"admin:{secrets['basic']}".encode()).decode()
    secrets["basic, encoded"] = basic
    shown["a password"] = None, (f"Authorization: Basic {basic}",)
    for name, (pair, lines) in shown.items():
        for what, asked in _requests(name, secrets, lines):
            await ask(found, f"{name}: {what}", pair, asked)
    await _browsers(found, bearers)
    await _kubectls(
        found,
        alpha,
        {name: {"token": token} for name, token in list(bearers.items())[:4]} | {"a key": user_of(certificate)},
    )
    await _issued(found, certificate)


def _requests(name: str, secrets: dict[str, str], lines: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """By path, each with cookies and other credentials of the gateway's that nobody asked for."""
    extra = (
        *lines, f"Cookie: session={secrets['cookie']}", f"Proxy-Authorization: Bearer {secrets['proxy-authorization']}",
        f"X-Forwarded-Access-Token: {secrets['cookie']}",
    )  # fmt: skip
    at, kind = "/clusters/alpha", "Content-Type: application/json"
    body = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"generateName": "tapped-"},
            "data": {"x": "planted-for-the-wire"},
        }
    )
    yield "discovery", request(f"{at}/api?from={name.replace(' ', '-')}", *extra)
    yield "list", request(f"{at}/api/v1/pods?limit=5", *extra)
    yield "get", request(f"{at}{POD}", *extra)
    yield "watch", request(f"{at}/api/v1/pods?watch=true&timeoutSeconds=1", *extra)
    yield "log", request(f"{at}{POD}/log", *extra)
    yield (
        "create",
        request(
            f"{at}/api/v1/namespaces/default/configmaps?dryRun=All", kind, *extra, method="POST", body=body.encode()
        ),
    )
    yield "proxy", request(f"{at}{POD}/proxy/", *extra)
    yield "node proxy", request(f"{at}/api/v1/nodes/node-1/proxy/healthz", *extra)
    yield "exec that is none", upgrade(f"{at}/api/v1/namespaces/default/pods/nobody/exec?command=id", *extra)
    yield "as somebody", request(f"{at}/api", *extra, "Impersonate-User: bob")
    yield "clusters", request("/apis/kulvert.dev/v1alpha1/clusters", *extra)
    yield "grants", request("/apis/kulvert.dev/v1alpha1/grants", *extra)
    yield "version", request("/version", *extra)
    yield "metrics", request("/metrics", *extra)
    yield "nowhere", request("/clusters/nowhere/api", *extra)


async def ask(found: Tapped, what: str, pair: Issued | None, asked: bytes) -> None:
    """One request on a connection of its own."""
    context = client_context(found.platform.ca, pair, found.platform.directory)
    async with connected(found.platform.port, context) as client:
        await client.say(asked)
        found.answers.append((what, await client.answer(asked.split(b" ", 1)[0].decode())))


async def _browsers(found: Tapped, bearers: dict[str, str]) -> None:
    """Tokens among the subprotocols, and a query that a page might make."""
    for name in ("an ID token", "Kulvert's token", "a token of the hub", "a token of the cluster"):
        encoded = base64.urlsafe_b64encode(bearers[name].encode()).rstrip(b"=").decode()
        found.secrets[f"{name}, as a subprotocol"] = encoded
        line = f"Sec-WebSocket-Protocol: {BEARER}{encoded}, v5.channel.k8s.io"
        target = f"/clusters/alpha{POD}/exec?command=echo&command=planted-in-exec&stdout=true"
        await ask(found, f"{name}: exec of a browser", None, upgrade(target, line))
    await ask(found, "a query", None, request(f"/clusters/alpha/api?access_token={found.secrets['query']}"))


async def _kubectls(found: Tapped, alpha: Cluster, users: dict[str, dict[str, Any]]) -> None:
    """Real sessions, by both protocols: exec is recorded."""
    for number, user in enumerate(users.values()):
        path = found.platform.directory / f"user-{number}.kubeconfig"
        write_kubeconfig(path, "alpha", f"{found.platform.url}/clusters/alpha", found.platform.ca, user)
        for env in ({}, SPDY):
            command = ("exec", "-i", "tapped", "--", "cat")
            ran = await alpha.kubectl(*command, kubeconfig=path, env=env, input=b"planted-on-stdin\n")
            assert ran.check().out == "planted-on-stdin", ran
        (await alpha.kubectl("get", "pods", kubeconfig=path)).check()


async def _issued(found: Tapped, certificate: Issued) -> None:
    """A certificate and a token that the gateway issues."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
    spec = {"request": base64.b64encode(csr.public_bytes(Encoding.PEM)).decode()}
    for kind, told in (("CertificateRequest", spec), ("TokenRequest", {})):
        body = json.dumps({"apiVersion": "kulvert.dev/v1alpha1", "kind": kind, "spec": told}).encode()
        path = f"/apis/kulvert.dev/v1alpha1/{kind.lower()}s"
        asked = request(path, "Content-Type: application/json", method="POST", body=body)
        await ask(found, kind, certificate, asked)
        assert found.answers[-1][1].status == 201, found.answers[-1]
    found.secrets |= ends("a token that was issued", found.answers[-1][1].json["status"]["token"])


async def _managed(found: Tapped) -> None:
    """A service account that the server has made, whose token it keeps in a file for its holder."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "serviceaccount", "create", "alpha", "default/managed", "--holder", "argocd", "--file", "alpha.token",
        "--state-dir", found.platform.state, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, (out, err)

    async def projected() -> Path | None:
        return next(found.platform.state.glob("serviceaccounts/*/alpha.token"), None)

    path = await until(projected, "a managed token", 20)
    assert path is not None
    found.managed = path.read_text().strip()


def user_of(issued: Issued) -> dict[str, str]:
    told = {"client-certificate-data": issued.certificate, "client-key-data": issued.key}
    return {name: base64.b64encode(pem).decode() for name, pem in told.items()}
