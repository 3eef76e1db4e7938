"""Credentials of every kind that a gateway may be shown: one good one for each authenticator, and every bad one.

The zoo holds the keys of all issuers, hence it can sign what none of them would. Its `settings` make a server know
them; what it puts into the server's state has to be there before the server starts (`prepare`).
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from auth import agentpki
from auth.pki import CertificateAuthority, Issued
from auth.tokens import TYPE
from gateway.database import Database
from gateway.issuing.store import RevocationStore
from gateway.membership.clusterkeys import ClusterKeys
from gateway.state import AUDIENCE, ISSUER, State
from tests.support.certificate_forge import revocation_list
from tests.support.cluster_api import until
from tests.support.cluster_pki import private_pem
from tests.support.oidc_issuer import jwk, rsa_key
from tests.support.oidc_thread import IssuerThread
from tests.support.token_forge import Forge, PrivateKey

DAY = 86_400.0
GROUP = "threats"
CLUSTERS_ISSUER = "https://kubernetes.default.svc"
"""Of every cluster here, as of every cluster out there."""
PROTOCOL = "Sec-WebSocket-Protocol: "
BEARER = "base64url.bearer.authorization.k8s.io."
HUB_ACCOUNT, CLUSTER_ACCOUNT = "zoo", "resident"


@dataclass(frozen=True)
class Shown:
    """What a client shows. `tls`: the handshake may fail for it. `codes` are what a head that no parser takes gets."""

    lines: tuple[str, ...] = ()
    pair: Issued | None = field(default=None, repr=False)
    tls: bool = False
    codes: tuple[int, ...] = (401,)

    @classmethod
    def bearer(cls, token: str) -> Shown:
        """In the place for it."""
        return cls((f"Authorization: Bearer {token}",))

    @property
    def secrets(self) -> set[str]:
        """What of it must not be found again."""
        words = [word for line in self.lines for word in line.partition(":")[2].replace(",", " ").split()]
        found = {word.rpartition(".")[2] or word for word in words}
        if self.pair is not None:
            found.add(self.pair.key.decode().splitlines()[1])
        return {one[-40:] for one in found if len(one) >= 40}


class Zoo:
    """Context-managed. `hub_key` signs the tokens of the hub's service accounts; `hub_uid` is its account `zoo`'s."""

    def __init__(self, directory: Path, state: Path, hub_kubeconfig: Path, hub_key: Path) -> None:
        self.now = time.time()
        self.directory = directory
        self.hub_uid = ""
        self._state = State(state)
        self._hub_kubeconfig = hub_kubeconfig
        self._hub_key = _load(hub_key)
        self._cluster_key = ec.generate_private_key(ec.SECP256R1())
        self._stack = ExitStack()
        self.company, self.lapsed, self.front, self.unknown = (
            CertificateAuthority.create(name, self.now - 10 * DAY) for name in ("company", "lapsed", "front", "unknown")
        )
        self.hub_tokens: dict[str, str] = {}
        """What only a real TokenRequest makes, by what is wrong with each."""
        self.hub_stranger = ""
        """A good token of a service account of the hub that no grant names."""
        self.foreign_tokens: dict[str, str] = {}
        """Tokens of other clusters' service accounts, by the cluster."""
        self.shown: list[Shown] = []
        """What a test has shown, for another look at it."""

    def __enter__(self) -> Self:
        keys = [jwk(rsa_key(number), kid=f"k{number}", use="sig") for number in (0, 1)]
        self.issuer = self._stack.enter_context(IssuerThread(self.directory / "issuer", *keys))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # --- the server's side

    def settings(self) -> dict[str, Any]:
        """What makes a server know every kind."""
        mappings = {"username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": ""}}
        self._write("authentication.yaml", yaml.safe_dump(self.issuer.configuration(AUDIENCE, mappings)).encode())
        self._write("users-ca.pem", self.company.certificate_pem + self.lapsed.certificate_pem)
        self.gone = self.company.issue_client("gone", [GROUP], self.now, DAY)
        lists = revocation_list(self.company, [self.gone], self.now), revocation_list(self.lapsed, [], self.now, -60.0)
        self._write("users.crl", b"".join(lists))
        self._write("front-ca.pem", self.front.certificate_pem)
        return {
            "authentication": {"config": self._path("authentication.yaml")},
            "tls": {"clientCa": self._path("users-ca.pem"), "clientCrl": self._path("users.crl")},
            "frontProxy": {"clientCa": self._path("front-ca.pem"), "allowedNames": ["front-proxy-client"]},
            "hub": {"kubeconfig": str(self._hub_kubeconfig), "tokenReview": True},
        }

    def prepare(self) -> None:
        """Authorities, two signing keys, and what was taken back."""
        self.platform, self.agents = self._state.authority(self.now), self._state.agents_authority(self.now)
        ring = self._state.token_keys.change(lambda ring: ring.rotated(self.now, 0.0), ISSUER, self.now)
        self._ring = self._state.token_keys.change(lambda _: ring, ISSUER, self.now)
        self.revoked = self.platform.issue_client("revoked", [GROUP], self.now, DAY)
        self.withdrawn = self.platform.issue_client("withdrawn", [GROUP], self.now, DAY)
        database = Database(self._state.registry)
        try:
            store = RevocationStore(database)
            store.revoke(f"{_serial(self.revoked):x}", self.now)
            store.revoke("a-revoked-jti", self.now)
            store.revoke_user("withdrawn", self.now + 2)
        finally:
            database.close()

    @property
    def cluster_keys(self) -> dict[str, object]:
        """The key set of the cluster whose issuer we are."""
        return {"keys": [jwk(self._cluster_key, kid="c0", use="sig", alg="ES256")]}

    # --- issuers

    @property
    def own(self) -> Forge:
        """Kulvert's own tokens."""
        first, second = self._ring.keys
        claims = {"iss": self._ring.issuer, "aud": AUDIENCE, "sub": "zoo", "groups": [GROUP], "uid": ""}
        kids = second.verification.kid, first.verification.kid
        return Forge(second.private, kids[0], claims, int(self.now), kids[1], TYPE)

    @property
    def oidc(self) -> Forge:
        """The OIDC issuer's."""
        claims = {"iss": self.issuer.url, "aud": AUDIENCE, "sub": "zoo", "groups": [GROUP]}
        return Forge(rsa_key(0), "k0", claims, int(self.now), "k1")

    @property
    def hub(self) -> Forge:
        """The hub's, for its account `zoo`, whose uid its API server checks."""
        claims = _account_claims(HUB_ACCOUNT, self.hub_uid) | {"aud": [AUDIENCE]}
        return Forge(self._hub_key, _kubernetes_kid(self._hub_key), claims, int(self.now))

    @property
    def cluster(self) -> Forge:
        """A managed cluster's own, by `cluster_keys`, which its agent reports."""
        claims = _account_claims(CLUSTER_ACCOUNT, "uid-of-resident") | {"aud": [CLUSTERS_ISSUER]}
        return Forge(self._cluster_key, "c0", claims, int(self.now))

    # --- what is shown

    def good(self) -> dict[str, Shown]:
        """One for each authenticator."""
        proxy = self.front.issue_client("front-proxy-client", [], self.now, DAY)
        who = ("X-Remote-User: zoo", f"X-Remote-Group: {GROUP}")
        return {
            "certificate": Shown(pair=self.platform.issue_client("zoo", [GROUP], self.now, DAY)),
            "certificate, company's": Shown(pair=self.company.issue_client("zoo", [GROUP], self.now, DAY)),
            "front-proxy": Shown(who, proxy),
            "token": Shown.bearer(self.own.good()),
            "oidc": Shown.bearer(self.oidc.good()),
            "hub": Shown.bearer(self.hub.good()),
            "cluster": Shown.bearer(self.cluster.good()),
        }

    def ungranted(self) -> dict[str, Shown]:
        """Known users whom no grant names."""
        proxy = self.front.issue_client("front-proxy-client", [], self.now, DAY)
        somebody = {"sub": "system:serviceaccount:default:somebody"}
        bound = {"namespace": "default", "serviceaccount": {"name": "somebody", "uid": "uid"}}
        return {
            "certificate": Shown(pair=self.platform.issue_client("eve", ["nobody"], self.now, DAY)),
            "certificate, company's": Shown(pair=self.company.issue_client("eve", [], self.now, DAY)),
            "front-proxy": Shown(("X-Remote-User: eve", "X-Remote-Group: nobody"), proxy),
            "token": Shown.bearer(self.own.good(sub="eve", groups=["nobody"])),
            "oidc": Shown.bearer(self.oidc.good(sub="eve", groups=["nobody"])),
            "hub": Shown.bearer(self.hub_stranger),
            "cluster": Shown.bearer(self.cluster.good(**somebody, **{"kubernetes.io": bound})),
        }

    def agent_certificate(self, cluster: str, uid: str, lifetime: float = DAY, began: float = 0.0) -> Issued:
        """As the agents' authority would issue it."""
        key = ec.generate_private_key(ec.SECP256R1())
        pem = agentpki.issue(self.agents, key.public_key(), cluster, uid, self.now + began, lifetime).pem
        return Issued(pem.encode(), private_pem(key))

    def _path(self, name: str) -> str:
        return str(self.directory / name)

    def _write(self, name: str, content: bytes) -> None:
        (self.directory / name).write_bytes(content)


def _account_claims(name: str, uid: str) -> dict[str, Any]:
    bound = {"namespace": "default", "serviceaccount": {"name": name, "uid": uid}}
    return {"iss": CLUSTERS_ISSUER, "sub": f"system:serviceaccount:default:{name}", "kubernetes.io": bound}


async def reported(registry: Path, clusters: Iterable[str]) -> None:
    """Waits until the agents of these clusters have reported their keys, and the server has read them."""

    async def pinned() -> bool:
        database = Database(registry)
        try:
            keys = ClusterKeys(database)
            return all(keys.get(cluster) is not None for cluster in clusters)
        finally:
            database.close()

    await until(pinned, "the clusters' keys to be reported", 15)


def uid_in(token: str) -> str:
    """Of the service account that a bound token is of."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return str(claims["kubernetes.io"]["serviceaccount"]["uid"])


def _kubernetes_kid(key: PrivateKey) -> str:
    """k8s.io/kubernetes pkg/serviceaccount, keyIDFromPublicKey."""
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def _load(path: Path) -> PrivateKey:
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _serial(issued: Issued) -> int:
    return x509.load_pem_x509_certificate(issued.certificate).serial_number
