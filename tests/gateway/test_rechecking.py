"""Live streams looked at again: which go on, which end, and what becomes of those for which somebody has to be asked.

How they end is in test_withdrawal.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from auth.grants.grants import Decisions, Grants
from auth.identity import Credentials, Identity
from auth.impersonation import AsWhom
from tests.gateway.gate import Gate, gate, grant, settle
from tests.gateway.test_pipeline import get
from tests.gateway.test_undecided import Issuer


def revoke(g: Gate) -> None:
    g.tokens.revoked.add("alice")
    g.chain.clear()


def remove(g: Gate) -> None:
    g.names.remove("a")


@pytest.mark.parametrize("change", [revoke, remove])
async def test_a_stream_ends_soon_after_its_user_may_not_have_it(change: Callable[[Gate], None]) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a/api/v1/pods?watch=1"))
        exchange = g.clusters.last
        exchange.begin(200)
        g.pass_time(15.0)
        assert exchange.cancelled is None
        change(g)
        g.pass_time(15.0)
        assert exchange.cancelled is not None
        await settle()
        assert wire.closed
        assert not wire.received.endswith(b"\r\n0\r\n\r\n")


def decided(grants: Grants, g: Gate) -> None:
    g.access._grants = Decisions(grants)


@pytest.mark.parametrize(
    ("changed", "cut"),
    [
        ({}, False),
        ({"name": "another"}, False),
        ({"clusters": ("a", "b")}, False),
        ({"impersonate": AsWhom(groups=("viewers",))}, True),
        ({"allow_user_impersonation": True}, True),
        ({"allow_protected": frozenset({"system:masters"})}, True),
        ({"clusters": ("b",)}, True),
    ],
)
async def test_a_stream_ends_where_it_would_be_opened_as_somebody_else_now(changed: dict[str, Any], cut: bool) -> None:
    before: dict[str, Any] = {"name": "devs", "groups": ["devs"], "clusters": ("a",)}
    async with gate(grants=Grants([grant(**before)])) as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a/api/v1/pods?watch=1"))
        exchange = g.clusters.last
        exchange.begin(200)
        decided(Grants([grant(**before | changed)]), g)
        g.chain.clear()
        g.pass_time(15.0)
        assert (exchange.cancelled is not None) is cut


async def test_a_bug_in_one_streams_recheck_ends_it_and_keeps_no_other_from_its_own() -> None:
    class Bug:
        broken = False

        def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
            if self.broken and credentials.bearer == "alice":
                raise KeyError("a bug")
            return None

    bug = Bug()
    async with gate(first=[bug]) as g:
        for name in [b"alice", b"mallory"] * 8:
            g.connect().send(get(b"/clusters/a/api/v1/pods?watch=1", name))
            g.clusters.last.begin(200)
        bug.broken = True
        g.tokens.revoked.add("mallory")
        g.chain.clear()
        g.pass_time(11)
        assert all(one.cancelled for one in g.clusters.opened)
        assert len(g.bugs) == 8
        g.bugs.clear()


# --- where a question has to be asked


@pytest.fixture
async def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def g(issuer: Issuer) -> AsyncIterator[Gate]:
    async with gate(first=[issuer]) as made:
        yield made


async def watch(g: Gate, issuer: Issuer) -> None:
    """A watch of ada's is under way."""
    issuer.answers.set()
    wire = g.connect()
    wire.send(get(b"/clusters/a/api/v1/pods?watch=1", b"remote-ada"))
    await settle()
    g.clusters.last.begin(200)


async def test_a_stream_whose_token_was_taken_back_ends_after_the_question(g: Gate, issuer: Issuer) -> None:
    await watch(g, issuer)
    g.chain.clear()
    issuer.known.clear()
    issuer.refused.add("remote-ada")
    g.pass_time(11)
    await settle()
    assert g.clusters.last.cancelled is not None


async def test_a_stream_whose_token_has_to_be_confirmed_anew_goes_on_meanwhile(g: Gate, issuer: Issuer) -> None:
    await watch(g, issuer)
    g.chain.clear()
    issuer.known.clear()
    issuer.answers.clear()
    g.pass_time(11)
    await settle()
    assert issuer.asked == 2
    issuer.answers.set()
    await settle()
    assert g.clusters.last.cancelled is None


async def test_a_stream_lives_through_its_issuers_absence_but_not_past_its_credential(g: Gate, issuer: Issuer) -> None:
    await watch(g, issuer)
    g.chain.clear()
    issuer.away = True
    g.pass_time(11)
    assert g.clusters.last.cancelled is None
    g.pass_time(3600)
    assert g.clusters.last.cancelled is not None


async def test_more_streams_than_requests_may_wait_go_on_when_their_token_is_confirmed_anew(
    g: Gate, issuer: Issuer
) -> None:
    """One controller's watches, 5,000 of them: all are looked at in one sweep."""
    issuer.answers.set()
    for _ in range(1_001):
        g.connect().send(get(b"/clusters/a/api/v1/pods?watch=1", b"remote-ada"))
        await settle(5)
        g.clusters.last.begin(200)
    g.chain.clear()
    issuer.known.clear()
    g.pass_time(11)
    await settle()
    assert not [one for one in g.clusters.opened if one.cancelled]
    g.chain.clear()
    issuer.known.clear()
    issuer.refused.add("remote-ada")
    g.pass_time(11)
    await settle()
    assert not [one for one in g.clusters.opened if not one.cancelled], "and all end when it was taken back"


async def test_a_stream_that_stays_undecided_ends_with_its_credential(g: Gate, issuer: Issuer) -> None:
    await watch(g, issuer)
    g.chain.clear()
    issuer.known.clear()
    issuer.forgets = True
    g.pass_time(11)
    await settle()
    assert g.clusters.last.cancelled is None
    g.pass_time(3600)
    await settle()
    assert g.clusters.last.cancelled is not None
