"""What authentication and authorisation add to a request once they are cached: CPU µs, as the pipeline calls them.

In process, since the bar (3 µs) is far below what a whole request varies by. The least of several runs counts: the rest
is other people's work on the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from auth.authenticator import Authenticator
from auth.chain import AuthenticatorChain
from auth.grants.grants import Decisions
from auth.grants.yaml import parse_grants
from auth.pki import CertificateAuthority
from auth.tokens import TokenAuthenticator
from auth.x509 import CertificateAuthenticator
from gateway.peer import Peer
from tests.support.decisions import der, signer
from tunnel.requestinfo import request_info

BAR: Final = 3.0
_ROUNDS: Final = 5
_REPEAT: Final = 20_000
_GRANTS: Final = """
apiVersion: kulvert.dev/v1alpha1
kind: Grants
grants:
- {name: others, subjects: [{kind: Group, name: others}], clusters: ["*"]}
- {name: plain, subjects: [{kind: Group, name: dev}], clusters: ["plain-*"]}
- name: restricted
  subjects: [{kind: Group, name: dev}]
  clusters: ["restricted-*"]
  access: {verbs: [get, list, watch], resources: [pods, pods/log, deployments.apps], namespaces: ["team-*", default]}
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """One way to be known, under one kind of grant."""

    credential: str
    grant: str
    microseconds: float


def measure() -> Iterator[Cost]:
    """Every combination."""
    now = time.time()
    authority = CertificateAuthority.create("bench", now)
    certificate = authority.issue_client("ada", ["dev"], now, 3600)
    tokens = signer()
    token = b"Bearer " + tokens.issue("ada", ["dev"], "u-1", "t-1", now, 600).encode()
    authenticators: list[Authenticator] = [
        CertificateAuthenticator((authority.certificate,)),
        TokenAuthenticator(tokens.issuer, tokens.audience, [tokens.verification_key]),
    ]
    chain = AuthenticatorChain(authenticators)
    decisions = Decisions(parse_grants(_GRANTS))
    ways = {"certificate": (Peer("", der(certificate.certificate)), None), "token": (Peer("", None), token)}
    for credential, (peer, authorization) in ways.items():
        for grant in ("plain", "restricted"):
            yield Cost(credential, grant, _least(_request(chain, decisions, peer, authorization, f"{grant}-1", now)))


def _request(
    chain: AuthenticatorChain, decisions: Decisions, peer: Peer, authorization: bytes | None, cluster: str, now: float
) -> Callable[[], None]:
    info = request_info("GET", b"/api/v1/namespaces/default/pods/demo")
    labels = (("env", "dev"),)

    def once() -> None:
        identity = chain.authenticate(peer.credentials(authorization), now, cluster)
        decision = decisions.decide(identity, cluster, now, info, labels)
        assert decision.allowed, decision.reason

    return once


def _least(once: Callable[[], None]) -> float:
    once()
    return min(_timed(once) for _ in range(_ROUNDS)) - min(_timed(_nothing) for _ in range(_ROUNDS))


def _timed(once: Callable[[], None]) -> float:
    began = time.process_time()
    for _ in range(_REPEAT):
        once()
    return 1e6 * (time.process_time() - began) / _REPEAT


def _nothing() -> None:
    return None
