"""As whom a request goes on: as the grant says, as its client asks, where the grant lets it, or as itself."""

from __future__ import annotations

from typing import Any

import pytest

from auth.decision import Decision
from auth.identity import Credentials, Identity
from tests.gateway.answers import read
from tests.gateway.gate import HEADS, gate, settle
from tests.gateway.test_headers import PODS, PROXY
from tests.gateway.wire import FakeExchange, Wire


@pytest.mark.parametrize("line", [PODS, PROXY, b"GET /version HTTP/1.1\r\n"], ids=["resource", "proxy", "management"])
@pytest.mark.parametrize(
    "header",
    [
        b"Impersonate-User: root", b"impersonate-group: system:masters", b"IMPERSONATE-UID: 1",
        b"Impersonate-Extra-x: y", b"Impersonate_User: root", b"Impersonate-Whatever-Comes: 1", b"Impersonate: x",
        b"Impersonate-User:", b"Impersonate-User: a\r\nImpersonate-User: b",
    ],
)  # fmt: skip
async def test_a_clients_own_impersonation_is_refused_without_a_grant(line: bytes, header: bytes) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(line + HEADS + header + b"\r\n\r\n")
        await settle()
        assert read(wire.take())[0].status == 403
        assert not g.clusters.opened


async def test_a_granted_impersonation_replaces_the_users_own_as_a_whole() -> None:
    who = b"Host: x\r\nAuthorization: Bearer root+admins\r\n"
    async with gate() as g:
        g.connect().send(PODS + who + b"Impersonate-User: bob\r\nImpersonate-Group: ops\r\n\r\n")
        exchange = g.clusters.last
        assert exchange.header(b"impersonate-user") == [b"bob"]
        assert exchange.header(b"impersonate-group") == [b"ops"]
        assert exchange.header(b"impersonate-extra-kulvert.dev%2foriginal-user") == [b"root"]


@pytest.mark.parametrize(
    "header", [b"Impersonate_User: bob", b"Impersonate-User: system:admin", b"Impersonate-Group: x"]
)
async def test_a_grant_allows_no_protected_or_malformed_impersonation(header: bytes) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(PODS + b"Host: x\r\nAuthorization: Bearer root\r\n" + header + b"\r\n\r\n")
        assert read(wire.take())[0].status == 403
        assert not g.clusters.opened


# --- a managed cluster's own service accounts

THROUGH = Decision(True, "own", "its own service account", pass_through=True)
ROBOT = Identity("system:serviceaccount:n:robot", (), "", (), "cluster", "JTI=robot", 9_999.0)


class Own:
    """Each bearer token is of an account of the cluster that is asked for."""

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity:
        return ROBOT

    def decide(self, *_: Any) -> Decision:
        return THROUGH


async def own(more: bytes) -> tuple[Wire, list[FakeExchange]]:
    async with gate() as g:
        g.access._authenticator = g.access._grants = Own()
        wire = g.connect()
        wire.send(PODS + HEADS + more + b"\r\n")
        return wire, g.clusters.opened


async def test_an_account_of_the_cluster_itself_goes_on_by_its_token_and_as_nobody_else() -> None:
    _, (exchange,) = await own(b"")
    assert exchange.head.pass_through
    assert exchange.header(b"authorization") == [b"Bearer alice"]
    assert not [name for name, _ in exchange.head.headers if name.startswith(b"impersonate")]


async def test_it_may_not_ask_to_be_somebody_else() -> None:
    wire, opened = await own(b"Impersonate-User: root\r\n")
    assert read(wire.take())[0].status == 403
    assert not opened
