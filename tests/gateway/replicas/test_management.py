"""Kulvert's own API at a replica that does not lead: the leader answers, and knows who asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from auth.identity import Identity
from gateway.failures import Refused
from gateway.handover import Caller, Handover, caller_of
from gateway.replicas import callers
from gateway.replicas.management import NAME, LeadersManagement, block_of, head_of
from stub.errors import Draining
from stub.ownership import Replica
from tests.support.owners import Owners
from tunnel.errors import ExchangeReset, HeadError
from tunnel.head import RequestHead, RequestReader
from tunnel.limits import HeadLimits
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseBlock, ResponseSink

ADA = Identity("ada", ("devs", "größe"), "7", (("scopes", ("a", "b")),), "x509", "X509SHA256=1", 2e9)
CALLER = Caller(ADA, "192.0.2.7", "audit-1")


@dataclass
class Sink:
    """What comes back."""

    status: int = 0
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def on_response(self, head: ResponseBlock) -> None:
        self.status, self.headers = head.status, head.headers
        if head.ended:
            self.done.set()

    def on_data(self, data: bytes) -> None:
        self.body += data

    def on_end(self, trailers: Headers) -> None:
        self.done.set()

    def on_reset(self, error: ExchangeReset) -> None:
        raise AssertionError(error)

    def on_writable(self) -> None: ...


class Link:
    """A peer link: what is opened by it is opened at the other replica."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, str, RequestBlock]] = []
        self.open_there: Callable[[RequestBlock, ResponseSink], Exchange]

    def open(self, replica: str, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        self.opened.append((replica, cluster, head))
        return self.open_there(head, sink)


def head(text: str) -> RequestHead:
    read = RequestReader(HeadLimits()).feed(text.replace("\n", "\r\n").encode())
    assert read is not None
    return read


POST = "POST /apis/kulvert.dev/v1alpha1/grants?x=1 HTTP/1.1\nHost: g\nAuthorization: Bearer secret\nCookie: c=1\n"
POST += "Content-Type: application/json\nContent-Length: 4\nKulvert-Caller: forged\nX-Own: 1\n\n"


@pytest.fixture
async def handover() -> AsyncIterator[Handover]:
    async def echo(request: web.Request) -> web.Response:
        caller = caller_of(request)
        caller.notes["kulvert.dev/grant"] = "made"
        assert "authorization" not in request.headers
        body = f"{caller.identity.user if caller.identity else ''} {await request.text()} {request.headers['X-Own']}"
        return web.Response(text=body, status=201)

    app = web.Application()
    app.router.add_post("/apis/kulvert.dev/v1alpha1/grants", echo)
    app.router.add_post("/version", echo)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, keepalive_timeout=0, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    yield Handover(runner.server, asyncio.get_running_loop())
    await runner.cleanup()


@pytest.fixture
def pair(handover: Handover) -> tuple[Owners, Owners, Link, LeadersManagement]:
    one, two = Owners("one", Replica("two", "x:1")), Owners("two", Replica("one", "x:2"))
    link = Link()
    there = LeadersManagement(handover, two, Link())
    link.open_there = there.open_here
    return one, two, link, LeadersManagement(handover, one, link)


async def test_the_leader_answers_in_the_callers_name(
    pair: tuple[Owners, Owners, Link, LeadersManagement],
) -> None:
    one, two, link, here = pair
    one.hold("two")
    two.hold("two")
    sink, caller = Sink(), replace(CALLER, notes={})
    exchange = here.open(head(POST), caller, sink)
    exchange.send_data(b"body")
    exchange.send_end()
    await asyncio.wait_for(sink.done.wait(), 3)
    assert (sink.status, sink.body) == (201, b"ada body 1")
    assert caller.notes == {"kulvert.dev/grant": "made"}
    assert not [name for name, _ in sink.headers if name.startswith(b"kulvert")]
    ((replica, cluster, block),) = link.opened
    assert (replica, cluster) == ("two", NAME)
    assert b"secret" not in repr(block.headers).encode()
    assert b"forged" not in repr(block.headers).encode()


@pytest.mark.parametrize("path", ["/version", "/apis/kulvert.dev/v1alpha1/grants"])
async def test_what_is_its_own_and_what_a_leader_is_asked_is_answered_here(
    pair: tuple[Owners, Owners, Link, LeadersManagement], path: str
) -> None:
    one, _, link, here = pair
    one.hold("two" if path == "/version" else "one")
    sink = Sink()
    exchange = here.open(head(POST.replace("/apis/kulvert.dev/v1alpha1/grants", path)), CALLER, sink)
    exchange.send_data(b"body")
    exchange.send_end()
    await asyncio.wait_for(sink.done.wait(), 3)
    assert sink.status == 201
    assert not link.opened


async def test_without_a_leader_it_is_said_when_to_come_again(
    pair: tuple[Owners, Owners, Link, LeadersManagement],
) -> None:
    with pytest.raises(Refused) as caught:
        pair[3].open(head(POST), CALLER, Sink())
    assert caught.value.retry_after == 1


async def test_who_does_not_lead_any_more_opens_nothing(
    pair: tuple[Owners, Owners, Link, LeadersManagement],
) -> None:
    with pytest.raises(Draining):
        pair[3].open_here(block_of(head(POST), CALLER), Sink())


@pytest.mark.parametrize("times", [0, 2])
def test_who_asks_is_said_exactly_once(times: int) -> None:
    block = block_of(head(POST), CALLER)
    said = [pair for pair in block.headers if pair[0] == callers.HEADER]
    block.headers = [pair for pair in block.headers if pair[0] != callers.HEADER] + said * times
    with pytest.raises(HeadError):
        head_of(block)


@pytest.mark.parametrize("value", [b"", b"x", b"bnVsbA==", b"e30=", b"eyJpZGVudGl0eSI6e319"])
def test_what_no_replica_would_say_is_refused(value: bytes) -> None:
    with pytest.raises(HeadError):
        callers.decode(value)


_texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)


@given(_texts, st.lists(_texts, max_size=4), st.lists(st.tuples(_texts, st.lists(_texts, max_size=3)), max_size=3))
def test_whoever_asks_arrives_as_the_same(user: str, groups: list[str], extra: list[tuple[str, list[str]]]) -> None:
    extras = tuple((key, tuple(values)) for key, values in extra)
    identity = Identity(user, tuple(groups), "", extras, "oidc", "JTI=1", 1.5)
    assert callers.decode(callers.encode(replace(CALLER, identity=identity))).identity == identity


@pytest.mark.parametrize("path", ["/%61pis/kulvert.dev/v1alpha1/grants", "//apis/kulvert.dev/v1alpha1/grants", "/x"])
async def test_however_a_path_is_spelt_only_the_leader_makes_something_of_it(
    pair: tuple[Owners, Owners, Link, LeadersManagement], path: str
) -> None:
    one, two, link, here = pair
    one.hold("two")
    two.hold("two")
    sink = Sink()
    exchange = here.open(head(POST.replace("/apis/kulvert.dev/v1alpha1/grants", path)), CALLER, sink)
    exchange.send_data(b"body")
    exchange.send_end()
    await asyncio.wait_for(sink.done.wait(), 3)
    assert len(link.opened) == 1
