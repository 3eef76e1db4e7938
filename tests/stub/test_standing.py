"""What a session rests on: how it is looked at again, renewed, and told whom to trust."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agent.enrolment import request
from agent.identityfile import AgentIdentity, new_key
from stub.sessions import Sessions
from stub.standing import PER, RENEW, RENEWALS, REVIEW, Standing, renewal_methods
from tests.stub.test_sessions import Time, make
from tests.support.agentauthority import Book
from tests.support.attached import UID, RawLink, Stub, attach_raw, eventually
from tunnel.calls import CallFailed
from tunnel.frames import CONTROL, encode
from tunnel.handshake import Refused
from tunnel.messages import encode_message


class Bed:
    """A standing whose times are in the test's hand."""

    def __init__(self) -> None:
        self.clock, self.wall = Time(), Time()
        self.wall.now = 1_800_000_000.0
        self.book = Book(lifetime=3600.0, wall=self.wall)
        self.standing = self.make(self.book.identity())

    def make(self, identity: AgentIdentity) -> Standing:
        return Standing(self.book, self.book.certificate(identity.der), self.clock, self.wall)

    async def renew(self, csr: object = None) -> dict[str, str]:
        params = {"csr": csr or request(new_key(), "alpha", "uid-of-alpha")}
        return await renewal_methods(self.standing)[RENEW](params)


@pytest.fixture
def bed() -> Bed:
    return Bed()


def test_it_is_looked_at_every_few_seconds_and_no_more(bed: Bed) -> None:
    bed.book.revoke(bed.book.identity())
    assert bed.standing.review(bed.clock.now + REVIEW - 0.1) is None
    refused = bed.standing.review(bed.clock.now + REVIEW)
    assert refused is not None
    assert "revoked" in refused.message
    assert bed.standing.review(bed.clock.now + REVIEW) is None


def test_a_certificate_that_has_expired_is_refused(bed: Bed) -> None:
    assert bed.standing.refuses() is None
    bed.wall.now += 3600
    refused = bed.standing.refuses()
    assert refused is not None
    assert refused.reason == "certificate"


def test_an_authority_that_cannot_tell_refuses(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_known: object) -> str:
        raise Refused("cluster", "the store cannot be read")

    monkeypatch.setattr(bed.book, "admit", broken)
    refused = bed.standing.refuses()
    assert refused is not None
    assert refused.message == "the store cannot be read"


async def test_a_renewed_certificate_takes_the_place_of_the_one_before(bed: Bed) -> None:
    before = bed.standing.known
    bed.wall.now += 2400
    given = await bed.renew()
    bed.wall.now += 1200
    assert bed.standing.refuses() is None
    assert bed.standing.known.serial != before.serial
    assert "BEGIN CERTIFICATE" in given["certificate"]
    bed.wall.now += 2400
    assert bed.standing.refuses() is not None


@pytest.mark.parametrize("csr", [7, ["x"], "x" * 3000, "a\0b", "no request", request(new_key(), "beta", "uid-of-beta")])
async def test_a_renewal_that_asks_for_something_else_fails(bed: Bed, csr: object) -> None:
    before = bed.standing.known
    with pytest.raises(CallFailed):
        await bed.renew(csr)
    with pytest.raises(CallFailed, match="missing"):
        await bed.standing.renew({})
    assert bed.standing.known is before


async def test_an_authority_that_refuses_a_renewal_says_why(bed: Bed) -> None:
    bed.book.fails = "not now"
    with pytest.raises(CallFailed, match="not now") as caught:
        await bed.renew()
    assert caught.value.reason == "cluster"


async def test_one_that_may_not_be_there_gets_no_new_certificate(bed: Bed) -> None:
    bed.book.pins.clear()
    with pytest.raises(CallFailed, match="not registered"):
        await bed.renew()
    bed.wall.now += 3600
    with pytest.raises(CallFailed, match="has expired"):
        await bed.renew()
    assert not bed.book.renewals


async def test_an_agent_gets_so_many_certificates_and_no_more(bed: Bed) -> None:
    for _ in range(RENEWALS):
        await bed.renew()
    with pytest.raises(CallFailed) as caught:
        await bed.renew()
    assert caught.value.reason == "overloaded"
    bed.clock.now += PER
    await bed.renew()


def test_each_bundle_is_told_once(bed: Bed) -> None:
    assert bed.standing.news() == ""
    bed.book.trust = "one"
    assert (bed.standing.news(), bed.standing.news()) == ("one", "")
    assert bed.make(bed.book.identity()).news() == ""


# --- sessions


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "stub" in request.fixturenames:
        monkeypatch.setattr("stub.standing.REVIEW", 0.05)


async def stayed(link: RawLink, seconds: float = 0.3) -> bool:
    try:
        await link.ended(seconds)
    except TimeoutError:
        return True
    return False


def later(stub: Stub, seconds: float) -> None:
    """Time passes for certificates."""
    before = stub.book.wall
    stub.book.wall = lambda: before() + seconds


@pytest.fixture
async def link(stub: Stub) -> AsyncIterator[RawLink]:
    link, _ = await attach_raw(stub)
    async with link:
        yield link


async def test_a_session_whose_certificate_is_revoked_ends_and_says_so(stub: Stub, link: RawLink) -> None:
    assert await stayed(link)
    stub.book.revoke(stub.book.identity("alpha", UID))
    message = await link.message()
    assert (message["kind"], message["reason"]) == ("refused", "cluster")
    assert "revoked" in message["message"]
    await link.ended()
    assert not stub.sessions.all()


async def test_a_session_whose_cluster_is_removed_ends(stub: Stub, link: RawLink) -> None:
    del stub.book.pins["alpha"]
    assert (await link.message())["kind"] == "refused"
    await link.ended()
    assert not stub.sessions.all()


async def test_a_session_whose_certificate_expires_ends(stub: Stub) -> None:
    link, _ = await attach_raw(stub)
    async with link:
        later(stub, stub.book.lifetime)
        message = await link.message()
        assert (message["reason"], message["message"]) == ("certificate", "the agent's certificate has expired")
        await link.ended()


async def test_a_session_outlives_the_certificate_that_it_began_with_once_that_is_renewed(stub: Stub) -> None:
    link, _ = await attach_raw(stub)
    async with link:
        later(stub, stub.book.lifetime * 2 / 3)
        params = {"csr": request(new_key(), "alpha", UID)}
        link.say(encode(CONTROL, payload=encode_message("call", id=1, method=RENEW, params=params)))
        answer = await link.message()
        assert "BEGIN CERTIFICATE" in answer["result"]["certificate"]
        later(stub, stub.book.lifetime / 2)
        assert await stayed(link)
        assert len(stub.sessions.all()) == 1


async def test_a_bundle_is_in_the_welcome_and_each_change_is_told(stub: Stub) -> None:
    stub.book.trust = "one"
    link, welcome = await attach_raw(stub)
    async with link:
        assert welcome.trust == "one"
        stub.book.trust = "two"
        assert await link.message() == {"kind": "trust", "bundle": "two"}


def test_one_that_is_sent_away_leaves_the_others_alone() -> None:
    time = Time()
    sessions, book, other = Sessions(clock=time, interval=1.0), Book(), Book()
    away, there = make(sessions, "a", book=book), make(sessions, "b", book=other)
    book.revoke(book.identity("alpha", "uid"))
    time.now += REVIEW
    for session in (away, there):
        sessions._review(session, time.now)
    assert sessions.all() == [there]
    assert away.mux.closed_reason == "the certificate has been revoked"
    assert there.mux.closed_reason is None


async def test_connections_are_gone_where_sessions_were_sent_away(stub: Stub, link: RawLink) -> None:
    del stub.book.pins["alpha"]
    await link.ended()
    await eventually(lambda: not stub.sessions.all())
