"""A whole gateway without sockets: listener's door, pipeline, management; scripted clusters behind, time in the test's
hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from auth.authenticator import AuthenticationFailed, Authenticator
from auth.chain import AuthenticatorChain
from auth.grants.grants import Decisions, Grant, Grants
from auth.identity import Credentials, Identity
from gateway.access import Access
from gateway.arrivals import Arrivals
from gateway.audit.log import AuditIds, AuditLog
from gateway.audit.trail import AuditTrail
from gateway.connection import ClientConnection
from gateway.door import Door
from gateway.handover import Handover
from gateway.limits import DoorLimits, DoorTimeouts
from gateway.management import Attached, Check, Management
from gateway.membership.registry import Cluster, RegistryError, Subscriber
from gateway.metrics import Traffic, TrafficCollector, registry_of
from gateway.opening import Opening
from gateway.pipeline import Pipeline
from gateway.rechecking import Rechecking
from gateway.route import Router
from gateway.settling import Settling
from stub.errors import StubError
from tests.gateway.wire import FakeClusters, Wire
from tunnel.batch import Batch

DATE = b"Fri, 20 Nov 2026 12:00:00 GMT"
ALICE = b"Authorization: Bearer alice\r\n"
HEADS = b"Host: gateway\r\n" + ALICE


class Tokens:
    """A user for each bearer token: the name, or `name+group` (`~` for a colon); `bad…` fails."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        token = credentials.bearer
        if token is None and credentials.certificate is not None:
            return Identity("carol", ("devs",), "", (), "x509", "X509SHA256=1", now + 3600)
        if token is None or token.startswith("bad") or token in self.revoked:
            raise AuthenticationFailed("the token is unknown")
        name, _, group = token.replace("~", ":").partition("+")
        return Identity(name, (group,) if group else ("devs",), "", (), "test", f"JTI={name}", now + 3600)


class Lines:
    """An audit log that a test can read, and break."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.broken = False

    def write(self, data: bytes) -> int:
        if self.broken:
            raise OSError(28, "No space left on device")
        self.pieces.append(data)
        return len(data)

    def close(self) -> None: ...

    @property
    def text(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.text.splitlines()]


class Names:
    """A registry in memory."""

    def __init__(self, names: Iterable[str]) -> None:
        self.clusters = {name: Cluster(name) for name in names}

    def get(self, name: str) -> Cluster | None:
        return self.clusters.get(name)

    def list(self) -> tuple[Cluster, ...]:
        return tuple(self.clusters.values())

    def add(self, cluster: Cluster) -> None:
        self.clusters[cluster.name] = cluster

    def remove(self, name: str) -> None:
        del self.clusters[name]

    def pin(self, name: str, uid: str) -> Cluster:
        raise RegistryError("not in these tests")

    def subscribe(self, subscriber: Subscriber) -> Any:
        return lambda: None


def grant(name: str, users: Iterable[str] = (), groups: Iterable[str] = (), **more: Any) -> Grant:
    return Grant(name, frozenset(users), frozenset(groups), **more)


GRANTS = Grants(
    [
        grant("devs", groups=["devs"], clusters=("a", "b", "gone", "ghost-*")),
        grant("root", users=["root"], clusters=("*",), allow_user_impersonation=True),
    ]
)


@dataclass
class Gate:
    """The parts that a test looks at or turns."""

    clusters: FakeClusters
    door: Door
    access: Access
    pipeline: Pipeline
    settling: Settling
    tokens: Tokens
    traffic: Traffic
    names: Names
    chain: AuthenticatorChain
    time: list[float]
    checks: dict[str, Check]
    audit: Lines
    arrivals: Arrivals
    bugs: list[BaseException] = field(default_factory=list)

    def connect(self, **extra: Any) -> Wire:
        return Wire(lambda: ClientConnection(self.door), **extra)

    def pass_time(self, seconds: float) -> None:
        self.time[0] += seconds
        self.door.sweep(self.time[0])


@asynccontextmanager
async def gate(
    *,
    domain: str = "",
    limits: DoorLimits | None = None,
    timeouts: DoorTimeouts | None = None,
    grants: Grants = GRANTS,
    first: Iterable[Authenticator] = (),
    transient: Iterable[type[StubError]] = (),
    awaited: float = 0.0,
) -> AsyncIterator[Gate]:
    """Set a gateway up, and take it down; it must have met no bug, and hold nothing when its connections are gone."""
    loop = asyncio.get_running_loop()
    time = [1_000.0]
    clusters, tokens, traffic, names = FakeClusters(), Tokens(), Traffic(), Names(["a", "b"])
    chain = AuthenticatorChain([*first, tokens])
    checks: dict[str, Check] = {}
    sink = Lines()
    audit = AuditLog(sink, lambda flush: flush(), lambda: time[0])
    doors: list[Door] = []
    bugs: list[BaseException] = []
    metrics = registry_of([TrafficCollector(traffic, doors)])
    management = Management(
        names, Decisions(grants), lambda _: Attached(1, 1), metrics, checks, "0.0.0", lambda: time[0]
    )
    settling, arrivals = Settling(), Arrivals(lambda: time[0], transient, awaited)
    runner = web.AppRunner(
        management.application(), handle_signals=False, access_log=None, keepalive_timeout=0, shutdown_timeout=0.1
    )
    await runner.setup()
    assert runner.server is not None
    limits = limits or DoorLimits()
    access = Access(chain, Decisions(grants), names)
    rechecking = Rechecking(access, settling, lambda: time[0], bugs.append)
    pipeline = Pipeline(
        router=Router(domain),
        access=access,
        opening=Opening(clusters, arrivals, settling, traffic),
        management=Handover(runner.server, loop),
        audit=AuditTrail(audit, AuditIds(lambda size: b"\x5a" * size), lambda: time[0]),
        traffic=traffic,
        settling=settling,
        clock=lambda: time[0],
        wall=lambda: time[0],
        large_body=limits.large_body,
        on_bug=bugs.append,
    )
    pipeline.date = DATE
    door = Door(pipeline, rechecking, Batch(loop.call_soon), limits, timeouts or DoorTimeouts(), time[0])
    doors.append(door)
    try:
        yield Gate(
            clusters,
            door,
            access,
            pipeline,
            settling,
            tokens,
            traffic,
            names,
            chain,
            time,
            checks,
            sink,
            arrivals,
            bugs,
        )
    finally:
        await settling.close()
        await runner.cleanup()
    assert not bugs


async def settle(turns: int = 20) -> None:
    """Let the loop run: for what aiohttp's tasks do."""
    for _ in range(turns):
        await asyncio.sleep(0)
