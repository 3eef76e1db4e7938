"""A platform whose clusters judge it: `kubectl auth whoami` says whom they saw, for users of every authenticator."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from auth.pki import CertificateAuthority, Issued
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_config import write_kubeconfig
from tests.support.cluster_helpers import service_account_token
from tests.support.dex import Dex, Person
from tests.support.hostile_client import connected, request
from tests.support.hostile_platform import client_context
from tests.support.kubectl import Result
from tests.support.platform import PROGRAM, Platform

CREDENTIAL, ORIGINAL = "authentication.kubernetes.io/credential-id", "kulvert.dev/original-user"
EVERYBODY = "system:authenticated"
ACCOUNT = "system:serviceaccount:default:"
Info = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """Who somebody is, as authenticated."""

    user: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: Mapping[str, list[str]] = field(default_factory=dict)

    def info(self) -> Info:
        """As userInfo: everybody is authenticated, and what is empty is left out."""
        told: Info = {"username": self.user, "groups": [*self.groups, EVERYBODY]}
        return told | ({"uid": self.uid} if self.uid else {}) | ({"extra": dict(self.extra)} if self.extra else {})

    @property
    def trail(self) -> dict[str, list[str]]:
        """What leads back to him from another identity."""
        return {ORIGINAL: [self.user]} | {key: one for key, one in self.extra.items() if key == CREDENTIAL}

    def called(self, user: str, *groups: str, uid: str = "") -> Known:
        """Another identity that leads back to this one."""
        return Known(user, groups, uid, self.trail)


class Judged:
    """The platform with every authenticator, and how each makes somebody known."""

    def __init__(self, platform: Platform, dex: Dex, hub: Cluster, front: CertificateAuthority) -> None:
        self.platform = platform
        self.dex = dex
        self.hub = hub
        self.front = front
        self._before = 0
        self.kinds: dict[str, Callable[[str], Coroutine[Any, Any, tuple[dict[str, Any], Known]]]] = {
            "certificate": self.by_certificate,
            "token": self.by_token,
            "oidc": self.by_dex,
            "hub": self.by_hub,
        }

    async def by_certificate(self, name: str) -> tuple[dict[str, Any], Known]:
        """Of the platform's CA."""
        issued = self.platform.certificate(name, ["team-a", "team-b"])
        return user_of(issued), Known(name, ("team-a", "team-b"), extra={CREDENTIAL: [fingerprint(issued)]})

    async def by_token(self, name: str) -> tuple[dict[str, Any], Known]:
        """Kulvert's own token, which it has issued on a certificate."""
        issued = self.platform.certificate(name, ["team-a", "team-b"])
        asked = {"apiVersion": "kulvert.dev/v1alpha1", "kind": "TokenRequest", "spec": {}}
        context = client_context(self.platform.ca, issued, self.platform.directory)
        async with connected(self.platform.port, context) as client:
            path = "/apis/kulvert.dev/v1alpha1/tokenrequests"
            kind = "Content-Type: application/json"
            await client.say(request(path, kind, method="POST", body=json.dumps(asked).encode()))
            answer = await client.answer("POST")
        assert answer.status == 201, answer
        token = answer.json["status"]["token"]
        extra = {CREDENTIAL: [f"JTI={claims_of(token)['jti']}"]}
        return {"token": token}, Known(name, ("team-a", "team-b"), extra=extra)

    async def by_dex(self, name: str) -> tuple[dict[str, Any], Known]:
        """A real OIDC provider's ID token, with uid and an extra."""
        token = (await self.dex.password_tokens(Person(name, ("team-a", "team-b"))))["id_token"]
        extra = {
            "example.org/mail": [f"{name}@example.com"],
            CREDENTIAL: [f"JWTSHA256={hashlib.sha256(token.encode()).hexdigest()}"],
        }
        groups = ("dex:team-a", "dex:team-b")
        return {"token": token}, Known(f"dex:{name}", groups, claims_of(token)["sub"], extra)

    async def by_hub(self, name: str) -> tuple[dict[str, Any], Known]:
        """A service account of the hub, by TokenReview."""
        token = await service_account_token(self.hub, "default", name, audiences=("kulvert",))
        claims = claims_of(token)
        groups = ("system:serviceaccounts", "system:serviceaccounts:default", EVERYBODY)
        uid = claims["kubernetes.io"]["serviceaccount"]["uid"]
        return {"token": token}, Known(ACCOUNT + name, groups[:2], uid, {CREDENTIAL: [f"JTI={claims['jti']}"]})

    async def whoami(self, user: dict[str, Any], *flags: str, cluster: str = "beta") -> Result:
        """`kubectl auth whoami -o json` through the gateway."""
        self.mark()
        digest = hashlib.sha256(json.dumps(user).encode()).hexdigest()[:12]
        path = self.platform.directory / f"whoami-{digest}-{cluster}.kubeconfig"
        write_kubeconfig(path, cluster, f"{self.platform.url}/clusters/{cluster}", self.platform.ca, user)
        return await self.hub.kubectl("auth", "whoami", "-o", "json", *flags, kubeconfig=path)

    async def record(self, user: str) -> dict[str, Any]:
        """The audit record of a user's last question, which may come after its answer."""

        async def found() -> dict[str, Any] | None:
            records = self.platform.audit()[self._before :]
            asked = [one for one in records if "/selfsubjectreviews" in one["requestURI"]]
            return next((one for one in asked if one["user"].get("username") == user), None)

        record = await until(found, f"the audit record of {user}", 5)
        assert record is not None
        return record

    async def notes(self, user: str) -> dict[str, str]:
        """The annotations of that."""
        found: dict[str, str] = (await self.record(user))["annotations"]
        return found

    def mark(self) -> None:
        """What comes from now on is the next question's."""
        self._before = len(self.platform.audit())

    async def explained(self, known: Known, cluster: str, *flags: str) -> dict[str, Any]:
        """`kulvert access explain` for the same question."""
        groups = [part for one in known.groups for part in ("--group", one)]
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "access", "explain", known.user, cluster, "create", "selfsubjectreviews.authentication.k8s.io",
            *groups, *flags, "-o", "json", "--state-dir", self.platform.state,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert out, err.decode()
        found: dict[str, Any] = json.loads(out)
        return found


def settings_of(directory: Path, dex: Dex, front: CertificateAuthority, hub: Cluster) -> dict[str, Any]:
    """Of a server with every authenticator."""
    claims = {
        "username": {"claim": "preferred_username", "prefix": "dex:"},
        "groups": {"claim": "groups", "prefix": "dex:"},
        "uid": {"claim": "sub"},
        "extra": [{"key": "example.org/mail", "valueExpression": "claims.email"}],
    }
    issuer = {"url": dex.issuer, "audiences": ["kulvert"], "certificateAuthority": dex.ca_file.read_text()}
    kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}
    file = directory / "authentication.yaml"
    file.write_text(yaml.safe_dump({**kind, "jwt": [{"issuer": issuer, "claimMappings": claims}]}))
    (directory / "front.pem").write_bytes(front.certificate_pem)
    return {
        "authentication": {"config": str(file)},
        "frontProxy": {"clientCa": str(directory / "front.pem"), "allowedNames": ["front-proxy-client"]},
        "hub": {"kubeconfig": str(hub.admin_kubeconfig), "tokenReview": True},
    }


def seen_by(result: Result) -> Info:
    """What the cluster saw, by its own words."""
    info: Info = json.loads(result.check().out)["status"]["userInfo"]
    return info


def user_of(issued: Issued) -> dict[str, Any]:
    """A kubeconfig's user."""
    told = {"client-certificate-data": issued.certificate, "client-key-data": issued.key}
    return {name: base64.b64encode(pem).decode() for name, pem in told.items()}


def fingerprint(issued: Issued) -> str:
    """What a certificate is called in extras."""
    der = x509.load_pem_x509_certificate(issued.certificate).public_bytes(Encoding.DER)
    return f"X509SHA256={hashlib.sha256(der).hexdigest()}"


def claims_of(token: str) -> dict[str, Any]:
    """What a token says."""
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found
