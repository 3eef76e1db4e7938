"""Enrolment at the agents' door: whoever proves a join token may ask for a certificate."""

from __future__ import annotations

from collections.abc import Callable

from stub.authority import AgentAuthority, EnrolmentRequest
from tunnel import proof
from tunnel.enrolment import EnrolHello, Issued
from tunnel.handshake import Challenge, Refused


def enrol(
    authority: AgentAuthority,
    challenge: Challenge,
    hello: EnrolHello,
    address: str,
    now: float,
    randomness: Callable[[int], bytes],
) -> Issued:
    """What an agent that holds a join token gets. Raises Refused. `now` is in seconds since the epoch."""
    known = authority.join_key(hello.token)
    expected = proof.enrol(
        known.key if known else randomness(32),
        *(challenge.nonce, hello.nonce, challenge.epoch, challenge.server),
        *(hello.name, hello.cluster, hello.cluster_id, hello.instance, hello.csr),
    )
    if not proof.matches(expected, hello.proof) or known is None:
        raise Refused("token", "the join token is unknown, or its proof is wrong: make a new one")
    if known.expires <= now:
        raise Refused("token", "the join token has expired: make a new one")
    if known.cluster not in ("", hello.cluster):
        raise Refused("token", f"the join token is not for cluster {hello.cluster!r}")
    who = (hello.token, hello.cluster, hello.cluster_id, hello.agent, hello.instance)
    granted = authority.enrol(EnrolmentRequest(*who, address, hello.csr))
    return Issued(granted.certificate, granted.trust)
