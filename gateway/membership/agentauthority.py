"""Which agents may come in, as the stub asks (`stub.authority.AgentAuthority`): by the stores of a single server."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from auth import agentpki
from auth.agentpki import AgentCertificateError, SigningRequest, Verifier
from auth.authorityfile import Now
from auth.jointoken import StoredJoinToken
from auth.pki import BACKDATED
from gateway.membership.admission import RETRY, RETRY_DENIED, Asked, Policy, Verdict, decide
from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.enrolments import Choice, Enrolment, EnrolmentSettings, State
from gateway.membership.registry import Cluster, RegistryError
from gateway.membership.stores import Stores
from gateway.membership.takeover import Presence
from stub.authority import AgentCertificate, Enrolled, EnrolmentRequest, JoinKey
from tunnel.handshake import STANDBY, Refused

log = structlog.get_logger("kulvert.enrolment")

HEARD = 10.0
"""Seconds after which each replica has heard of a certificate that another one has issued."""


class RegistryAuthority:
    """Implements `stub.authority.AgentAuthority`. `authority` gives the agents' as it is now, `trusted` the PEM of what
    agents shall trust of the server.
    """

    def __init__(
        self,
        stores: Stores,
        authority: Now,
        settings: EnrolmentSettings,
        presence: Presence,
        trusted: Callable[[], str],
        wall: Callable[[], float],
    ) -> None:
        self._stores = stores
        self._authority = authority
        self._verifies, self._verifier = authority(), Verifier(*authority().trusted)
        self._lifetime = settings.certificate_lifetime
        self._policy = Policy(settings.auto_accept, settings.takeover_grace)
        self._presence = presence
        self._trusted = trusted
        self._wall = wall

    @property
    def trust(self) -> str:
        """See `AgentAuthority`."""
        return self._trusted()

    def join_key(self, token_id: str) -> JoinKey | None:
        """See `AgentAuthority`. One that is used up is known here: the agents that used it may ask again."""
        token = self._stores.tokens.get(token_id)
        if token is None:
            self._poll()  # the command may have made it since the last poll; its user should not wait for the next
            token = self._stores.tokens.get(token_id)
        return JoinKey(token.key, token.cluster, token.expires) if token else None

    # --- enrolment

    def enrol(self, request: EnrolmentRequest) -> Enrolled:
        """See `AgentAuthority`."""
        self._poll()
        now, token = self._wall(), self._stores.tokens.get(request.token)
        if token is None:
            raise Refused("token", "the join token has been revoked: make a new one", retry_after=RETRY_DENIED)
        csr = _read(request.csr, request.cluster, request.cluster_id)
        verdict = decide(self._asked(request, csr, token, now), self._policy, now)
        if verdict.state is not State.ACCEPTED:
            raise self._not_yet(request, csr, verdict, now)
        try:
            return self._accept(request, csr, token, verdict, now)
        except RegistryError as error:
            raise _busy(error) from error

    def _asked(self, request: EnrolmentRequest, csr: SigningRequest, token: StoredJoinToken, now: float) -> Asked:
        stores, name, cluster_id = self._stores, request.cluster, request.cluster_id
        cluster, known = stores.registry.get(name), stores.enrolments.get((name, cluster_id, csr.fingerprint))
        choice = known.choice if known is not None else Choice.NONE
        if any(one.fingerprint == csr.fingerprint and one.revoked is not None for one in stores.certificates.of(name)):
            choice = Choice.DENIED  # its key was revoked, not its certificate alone
        holder = cluster.uid if cluster is not None else None
        return Asked(
            name,
            cluster_id,
            token,
            cluster,
            usable=stores.tokens.usable(token, csr.fingerprint),
            choice=choice,
            enrolled=stores.certificates.has_key(name, cluster_id, csr.fingerprint, now),
            last_connected=self._presence.last_connected(name, holder) if holder and holder != cluster_id else 0.0,
        )

    def _not_yet(self, request: EnrolmentRequest, csr: SigningRequest, verdict: Verdict, now: float) -> Refused:
        """What the agent is told; requests that somebody may decide about are kept."""
        refused = Refused(verdict.reason, verdict.message, retry_after=verdict.retry_after)
        if verdict.state is State.DENIED and verdict.reason != "denied":
            return refused
        who = (request.cluster, request.cluster_id, csr.fingerprint, request.agent, request.address, request.token)
        try:
            self._stores.enrolments.told(Enrolment(*who, now, now, verdict.state, verdict.message))
        except RegistryError as error:
            return _busy(error)
        return refused

    def _accept(
        self, request: EnrolmentRequest, csr: SigningRequest, token: StoredJoinToken, verdict: Verdict, now: float
    ) -> Enrolled:
        stores, name = self._stores, request.cluster
        stores.tokens.use(token, csr.fingerprint)
        if verdict.gives_name:
            self._give_name(name, request.cluster_id, token, now)
        issued = self._issue(csr, name, request.cluster_id, request.agent, now)
        stores.enrolments.remove((name, request.cluster_id, csr.fingerprint))
        log.info("agent enrolled", cluster=name, agent=request.agent, address=request.address, token=token.id)
        return issued

    def _give_name(self, name: str, cluster_id: str, token: StoredJoinToken, now: float) -> None:
        registry, before = self._stores.registry, self._stores.registry.get(name)
        if before is None:
            registry.add(Cluster(name, None, now, token.labels))
        if before is None or before.uid is None:
            registry.pin(name, cluster_id, now)
            return
        give_to(self._stores, before, cluster_id, now)
        log.warning("cluster taken over", cluster=name, before=before.uid, now=cluster_id)

    def _issue(
        self, csr: SigningRequest, name: str, cluster_id: str, agent: str, now: float, root: str = ""
    ) -> Enrolled:
        made = agentpki.issue(self._authority(), csr.key, name, cluster_id, now, self._lifetime)
        kept = IssuedCertificate(made.serial, name, cluster_id, agent, csr.fingerprint, now, made.expires, root=root)
        self._stores.certificates.add(kept, now)
        return Enrolled(made.pem, self.trust)

    # --- those who have a certificate

    def _current_verifier(self) -> Verifier:
        if (authority := self._authority()) is not self._verifies:
            self._verifies, self._verifier = authority, Verifier(*authority.trusted)
        return self._verifier

    def renew(self, known: AgentCertificate, csr: str) -> Enrolled:
        """See `AgentAuthority`."""
        if why := self.admit(known):
            raise Refused("certificate", why)
        before = self._stores.certificates.get(known.serial)
        agent, root = (before.agent, before.line) if before is not None else ("", "")
        try:
            request = _read(csr, known.cluster, known.cluster_id)
            return self._issue(request, known.cluster, known.cluster_id, agent, self._wall(), root)
        except RegistryError as error:
            raise _busy(error) from error

    def certificate(self, der: bytes) -> AgentCertificate:
        """See `AgentAuthority`."""
        now = self._wall()
        try:
            shown = self._current_verifier().read(der, now)
        except AgentCertificateError as error:
            raise Refused("certificate", str(error)) from error
        kept = self._stores.certificates.get(shown.serial)
        if kept is None:
            self._poll()  # another process of this server may have issued it since the last poll
            kept = self._stores.certificates.get(shown.serial)
        if kept is None and now < shown.begins + BACKDATED + HEARD:
            raise Refused(
                STANDBY, "this replica has not heard of the agent's certificate yet: try again", retry_after=1
            )
        if kept is None or not kept.counts(now) or (kept.cluster, kept.cluster_id) != (shown.cluster, shown.cluster_id):
            raise Refused("certificate", "the agent's certificate has been revoked")
        return AgentCertificate(shown.cluster, shown.cluster_id, shown.serial, shown.expires, shown.key)

    def admit(self, known: AgentCertificate) -> str:
        """See `AgentAuthority`. In a cluster that is being removed agents stay: it is cleaned up through them."""
        now, cluster = self._wall(), self._stores.registry.get(known.cluster)
        kept = self._stores.certificates.get(known.serial)
        if cluster is None:
            return f"cluster {known.cluster!r} is not registered (any more)"
        if kept is None or not kept.counts(now):
            return "the agent's certificate has been revoked, or has expired"
        if cluster.uid != known.cluster_id:
            return f"the name {known.cluster!r} is another cluster's"
        if cluster.denied and not cluster.phase:
            return f"the hub does not accept cluster {known.cluster!r} (hubAcceptsClient)"
        self._stores.certificates.shown(known.serial, now)
        return ""

    def _poll(self) -> None:
        try:
            self._stores.registry.poll()
        except RegistryError as error:
            raise _busy(error) from error


def give_to(stores: Stores, before: Cluster, cluster_id: str, now: float) -> Cluster:
    """Gives a name to another cluster than had it, whose agents are not let in any more.

    :raises RegistryError: somebody else has given it away meanwhile.
    """
    after = stores.registry.switch(before.name, before.uid, cluster_id, now)
    if before.uid is not None:
        stores.certificates.remove_of(before.name, before.uid)
    return after


def _read(csr: str, cluster: str, cluster_id: str) -> SigningRequest:
    try:
        return agentpki.read_request(csr, cluster, cluster_id)
    except AgentCertificateError as error:
        raise Refused("request", str(error), retry_after=RETRY_DENIED) from error


def _busy(error: RegistryError) -> Refused:
    return Refused("overloaded", str(error), retry_after=RETRY)
