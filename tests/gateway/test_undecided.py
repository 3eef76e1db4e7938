"""A request whose token has to be confirmed elsewhere: it waits, is decided again, and nothing slips by meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable, Undecided
from auth.identity import Credentials, Identity
from gateway.settling import ROUNDS, Settling, settled
from tests.gateway.answers import read
from tests.gateway.gate import Gate, gate, settle
from tests.gateway.test_pipeline import get


@dataclass
class Issuer:
    """Says who a token is for when a test lets it. `known` is what it has confirmed, `asked` how often it was asked."""

    known: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    asked: int = 0
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    forgets: bool = False
    away: bool = False

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        token = credentials.bearer or ""
        if not token.startswith("remote-"):
            return None
        if self.away:
            raise AuthenticationUnavailable("the issuer cannot be reached")
        if token in self.refused:
            raise AuthenticationFailed("the issuer does not know this token")
        if token not in self.known:
            raise Undecided(lambda: self.settle(token))
        return Identity(self.known[token], ("devs",), "", (), "remote", f"JTI={token}", now + 3600)

    async def settle(self, token: str) -> None:
        self.asked += 1
        await self.answers.wait()
        if not self.forgets:
            self.known[token] = token.removeprefix("remote-")


@pytest.fixture
async def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def g(issuer: Issuer) -> AsyncIterator[Gate]:
    async with gate(first=[issuer]) as made:
        yield made


async def test_a_request_waits_for_its_issuer_and_then_goes_its_way(g: Gate, issuer: Issuer) -> None:
    wire = g.connect()
    wire.send(get(b"/clusters/a/api", b"remote-ada"))
    await settle()
    assert (wire.received, g.clusters.opened, issuer.asked) == (b"", [], 1)
    issuer.answers.set()
    await settle()
    assert g.clusters.last.header(b"impersonate-user") == [b"ada"]
    g.clusters.last.respond(200, body=b"{}")
    await settle()
    assert read(wire.take())[0].status == 200
    wire.send(get(b"/clusters/a/api", b"remote-ada"))
    assert len(g.clusters.opened) == 2, "what was confirmed is decided at once"


async def test_a_body_and_the_next_request_wait_too(g: Gate, issuer: Issuer) -> None:
    wire = g.connect()
    post = get(b"/clusters/a/api/v1/pods", b"remote-ada", b"POST", b"Content-Length: 5\r\n")
    wire.send(post + b"he")
    await settle()
    wire.send(b"llo" + get(b"/clusters/b/api", b"alice"))
    await settle()
    assert not g.clusters.opened, "the second request does not overtake the first"
    issuer.answers.set()
    await settle()
    first = g.clusters.last
    assert (first.cluster, first.sent, first.ended) == ("a", b"hello", True)
    first.respond(201)
    await settle()
    assert g.clusters.last.cluster == "b"
    g.clusters.last.respond(200)
    await settle()
    assert [answer.status for answer in read(wire.take(), "POST", "GET")] == [201, 200]


async def test_a_client_that_leaves_meanwhile_opens_nothing(g: Gate, issuer: Issuer) -> None:
    wire = g.connect()
    wire.send(get(b"/clusters/a/api", b"remote-ada"))
    await settle()
    wire.lose()
    issuer.answers.set()
    await settle()
    assert not g.clusters.opened
    assert g.traffic.in_flight == 0


async def test_a_refused_token_is_a_401(g: Gate, issuer: Issuer) -> None:
    wire = g.connect()
    wire.send(get(b"/clusters/a/api", b"remote-eve"))
    issuer.refused.add("remote-eve")
    issuer.answers.set()
    await settle()
    assert read(wire.take())[0].status == 401
    assert not g.clusters.opened


async def test_an_issuer_that_never_makes_up_its_mind_is_a_503_in_the_end(g: Gate, issuer: Issuer) -> None:
    issuer.forgets = True
    issuer.answers.set()
    wire = g.connect()
    wire.send(get(b"/clusters/a/api", b"remote-ada"))
    await settle(100)
    (got,) = read(wire.take())
    assert (got.status, got.headers["retry-after"], got.hop) == (503, "1", "gateway")
    assert issuer.asked == ROUNDS
    assert not g.clusters.opened


async def test_an_issuer_that_is_away_is_a_503_and_not_a_401(g: Gate, issuer: Issuer) -> None:
    issuer.away = True
    wire = g.connect()
    wire.send(get(b"/clusters/a/api", b"remote-ada"))
    await settle()
    assert read(wire.take())[0].status == 503
    issuer.away = False
    issuer.answers.set()
    wire.send(get(b"/clusters/a/api", b"remote-ada"))
    await settle()
    assert len(g.clusters.opened) == 1, "being away is not remembered"


# --- the waiting itself


async def test_only_so_many_may_wait() -> None:
    settling = Settling(most=1)
    never = Undecided(asyncio.Event().wait)  # type: ignore[arg-type]  # what it gives is not looked at
    assert settling.wait(never, lambda: None)
    assert not settling.wait(never, lambda: None)
    await settling.close()


async def test_patience_ends_and_the_decision_is_made_again() -> None:
    settling, again = Settling(patience=0.01), asyncio.Event()
    never = Undecided(asyncio.Event().wait)  # type: ignore[arg-type]  # as above
    assert settling.wait(never, again.set)
    async with asyncio.timeout(2):
        await again.wait()
    await settling.close()


async def test_closing_calls_nobody_back() -> None:
    settling, called = Settling(), []
    settling.wait(Undecided(asyncio.Event().wait), lambda: called.append(1))  # type: ignore[arg-type]  # as above
    await asyncio.sleep(0)
    await settling.close()
    assert not called


async def test_whoever_may_await_gets_the_decision_or_an_end() -> None:
    answers = iter([Undecided(_at_once), Undecided(_at_once)])

    def decide() -> str:
        for undecided in answers:
            raise undecided
        return "yes"

    def never() -> str:
        raise Undecided(_at_once)

    assert await settled(decide) == "yes"
    with pytest.raises(AuthenticationUnavailable):
        await settled(never)


async def _at_once() -> None:
    await asyncio.sleep(0)


async def test_a_question_that_fails_is_told_and_the_decision_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise RuntimeError("a bug")

    settling, again = Settling(), asyncio.Event()
    assert settling.wait(Undecided(fails), again.set)
    async with asyncio.timeout(2):
        await again.wait()
    await settling.close()
    assert "a question cannot be settled" in caplog.text


async def test_requests_that_wait_keep_no_live_stream_from_its_answer() -> None:
    settling, looked = Settling(most=1), asyncio.Event()
    never = Undecided(asyncio.Event().wait)  # type: ignore[arg-type]  # what it gives is not looked at
    assert settling.wait(never, lambda: None)
    for _ in range(3):
        settling.look_again(Undecided(_at_once), looked.set)
    async with asyncio.timeout(2):
        await looked.wait()
    await settling.close()
