"""An `AgentAuthority` in memory, which issues real certificates, and in which a test turns whatever it wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

from agent.identityfile import AgentIdentity, new_key
from auth.agentpki import AgentCertificateError, Verifier, fingerprint, issue, read_request
from auth.pki import CertificateAuthority
from stub.authority import AgentCertificate, Enrolled, EnrolmentRequest, JoinKey
from tunnel import proof
from tunnel.handshake import Refused

SECRET = b"s" * 32
DAY = 86_400.0


class Book:
    """The token `join-a` is good for cluster alpha, `join-b` for beta; both are accepted at once."""

    def __init__(
        self, lifetime: float = DAY, wall: Callable[[], float] = time.time, ca: CertificateAuthority | None = None
    ) -> None:
        self.lifetime = lifetime
        self.wall = wall
        later = wall() + 3600
        self.keys = {
            token: JoinKey(proof.join_key(token, SECRET), cluster, later)
            for token, cluster in (("join-a", "alpha"), ("join-b", "beta"))
        }
        self.pins: dict[str, str] = {"alpha": "", "beta": ""}
        self.waiting: set[str] = set()
        """Clusters that an administrator has still to accept."""
        self.said = "waits for an administrator"
        self.requests: list[EnrolmentRequest] = []
        self.renewals: list[str] = []
        self.fails = ""
        """Why nothing is renewed."""
        self.revoked: set[str] = set()
        self.trust = ""
        self.ca = ca or CertificateAuthority.create("test agents", wall())
        self._verifier = Verifier(self.ca.certificate)
        self.identity = cache(self.issued)

    # --- for tests

    def add(self, token_id: str, cluster: str) -> None:
        """One more join token with the secret `SECRET`."""
        self.keys[token_id] = JoinKey(proof.join_key(token_id, SECRET), cluster, self.wall() + 3600)

    def issued(self, cluster: str = "alpha", cluster_id: str = "uid-of-alpha") -> AgentIdentity:
        """A new identity; `identity` gives the same one each time."""
        key = new_key()
        pem = issue(self.ca, key.public_key(), cluster, cluster_id, self.wall(), self.lifetime).pem
        return AgentIdentity.of(key, pem, cluster, cluster_id)

    def revoke(self, identity: AgentIdentity) -> None:
        """Take a certificate back."""
        self.revoked.add(self._verifier.read(identity.der, self.wall()).serial)

    @property
    def asked(self) -> set[str]:
        """Fingerprints of the keys that asked."""
        return {read_request(one.csr, one.cluster, one.cluster_id).fingerprint for one in self.requests}

    # --- AgentAuthority

    def join_key(self, token_id: str) -> JoinKey | None:
        """See there."""
        return self.keys.get(token_id)

    def enrol(self, request: EnrolmentRequest) -> Enrolled:
        """See there."""
        self.requests.append(request)
        pem = self.sign(request.csr, request.cluster, request.cluster_id)
        if request.cluster in self.waiting:
            raise Refused("pending", f"cluster {request.cluster!r} {self.said}", retry_after=1)
        self._check(request.cluster, request.cluster_id)
        self.pins[request.cluster] = request.cluster_id
        return Enrolled(pem, self.trust)

    def renew(self, known: AgentCertificate, csr: str) -> Enrolled:
        """See there."""
        if self.fails:
            raise Refused("cluster", self.fails)
        self._check(known.cluster, known.cluster_id)
        self.renewals.append(fingerprint(known.public_key))
        return Enrolled(self.sign(csr, known.cluster, known.cluster_id), self.trust)

    def certificate(self, der: bytes) -> AgentCertificate:
        """See there."""
        try:
            shown = self._verifier.read(der, self.wall())
        except AgentCertificateError as error:
            raise Refused("certificate", str(error)) from error
        if shown.serial in self.revoked:
            raise Refused("certificate", "the certificate has been revoked")
        return AgentCertificate(shown.cluster, shown.cluster_id, shown.serial, shown.expires, shown.key)

    def admit(self, known: AgentCertificate) -> str:
        """See there. The first agent of a cluster pins it, so that tests need not enrol."""
        if known.serial in self.revoked:
            return "the certificate has been revoked"
        try:
            self._check(known.cluster, known.cluster_id)
        except Refused as refused:
            return refused.message
        self.pins[known.cluster] = known.cluster_id
        return ""

    def _check(self, cluster: str, cluster_id: str) -> None:
        if cluster not in self.pins:
            raise Refused("cluster", f"cluster {cluster!r} is not registered")
        if self.pins[cluster] not in ("", cluster_id):
            raise Refused("cluster", f"cluster {cluster!r} is pinned to another cluster")

    def sign(self, csr: str, cluster: str, cluster_id: str) -> str:
        """A certificate for whoever made the request, if it is for this cluster. Raises Refused."""
        try:
            key = read_request(csr, cluster, cluster_id).key
        except AgentCertificateError as error:
            raise Refused("request", str(error)) from error
        return issue(self.ca, key, cluster, cluster_id, self.wall(), self.lifetime).pem
