"""What an audit record costs: from the passage that has ended to the line that is written, in µs of CPU.

The record is made of a real passage's fields by the real trail, and written to /dev/null in batches of 50, as a busy
turn of the loop does. `repeated` is a client that asks the same again (a poll, a health check), `varied` one that asks
for another object each time, `policy` the former under a policy of 20 rules.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from auth.decision import Decision
from auth.identity import Identity
from gateway.audit.log import AuditIds, AuditLog
from gateway.audit.policy import AuditPolicy, parse_policy
from gateway.audit.sinks import FileSink
from gateway.audit.trail import AuditTrail
from gateway.passage import Passage
from gateway.peer import Peer
from gateway.ports import Client, Owner
from gateway.route import Router
from tunnel.head import RequestHead, RequestReader
from tunnel.impersonate import headers_for
from tunnel.limits import HeadLimits
from tunnel.requestinfo import request_info

BAR = 5.0
BATCH = 50
BATCHES = 40
ROUNDS = 15
_HEAD = (
    b"GET /clusters/alpha/api/v1/namespaces/default/pods/demo%s HTTP/1.1\r\nHost: gateway\r\n"
    b"User-Agent: kubectl/v1.36.3 (linux/amd64) kubernetes/5c2ba2d\r\nAccept: application/json\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class AuditCost:
    """µs of CPU for a record."""

    repeated: float
    varied: float
    policy: float


def measure() -> AuditCost:
    """The least of several rounds, since other work on the machine only ever adds."""
    return AuditCost(
        _cost(b"", None),
        _cost(b"-%d", None),
        _cost(b"", _policy()),
    )


def _policy() -> AuditPolicy:
    rules = "".join(f"- {{level: None, users: [robot{number}], verbs: [get]}}\n" for number in range(10))
    rules += "".join(f"- {{level: None, resources: [{{group: group{number}.test}}]}}\n" for number in range(9))
    return parse_policy(f"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}- {{level: Metadata}}\n")


def _cost(suffix: bytes, policy: AuditPolicy | None) -> float:
    sink = FileSink(Path("/dev/null"))
    log = AuditLog(sink, lambda _flush: None)
    trail = AuditTrail(log, AuditIds(os.urandom), time.time, clock=time.monotonic, policy=policy)
    passages = list(_passages(suffix, BATCH * BATCHES))
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for at in range(0, len(passages), BATCH):
            for passage in passages[at : at + BATCH]:
                passage.audit_id = trail.new_id()
                trail.completed(passage)
            log.flush()
        best = min(best, time.process_time() - began)
    sink.close()
    return 1e6 * best / len(passages)


def _passages(suffix: bytes, count: int) -> Iterator[Passage]:
    """Requests of one connection, as the pipeline leaves them."""
    reader, router, owner = RequestReader(HeadLimits()), Router(""), cast(Owner, None)
    client = cast(Client, SimpleNamespace(peer=Peer("192.0.2.7", None), draining=False))
    user, groups = "jane", ("kulvert:admins", "developers")
    identity = Identity(user, groups, "", (), "x509", "X509SHA256=" + "ab" * 32, time.time() + 3600)
    decision = Decision(True, "admins", "allowed by grant 'admins'", headers_for(user, groups, "", ()))
    for number in range(count):
        head = reader.feed(_HEAD % (suffix % number if suffix else b""))
        assert isinstance(head, RequestHead)
        passage = Passage(client, owner, head, True)
        passage.route = router.route(head.target, b"gateway")
        path, _, query = passage.route.target.partition(b"?")
        passage.info = request_info("GET", path, query)
        passage.identity, passage.decision, passage.allowed = identity, decision, True
        passage.cluster, passage.agent = "alpha", "agent-alpha"
        passage.started, passage.received = time.monotonic(), time.time()
        passage.code, passage.response_bytes = 200, 2981
        yield passage


def main() -> None:
    """Print it."""
    cost = measure()
    print(
        f"audit record: {cost.repeated:.2f} µs (repeated), {cost.varied:.2f} µs (varied), {cost.policy:.2f} µs (policy)"
    )


if __name__ == "__main__":
    main()
