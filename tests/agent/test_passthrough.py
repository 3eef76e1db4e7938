"""Pass-through: a service account's own token goes to the API server, the agent's own never with it, and none mixes."""

from __future__ import annotations

import pytest

from agent.policy import HeadRefused, LocalPolicy, checked
from agent.policyrules import RuleSettings
from agent.request import render
from tests.agent.apiserver import Client, answering
from tests.agent.conftest import TOKEN, Before, World
from tests.agent.fakes import USER, get, websocket
from tests.agent.test_access import SERVER
from tunnel.block import decode_request, encode_request
from tunnel.errors import Hop, Reason
from tunnel.known import LineMemory
from tunnel.ports import Headers, RequestBlock

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
ALLOWED = LocalPolicy(allow_pass_through=True)
THEIRS = b"eyJhbGciOiJSUzI1NiJ9.e30.c2ln"


def through(*headers: tuple[bytes, bytes], token: bytes = THEIRS, target: bytes = b"/api") -> RequestBlock:
    """A pass-through, with an Audit-ID in front as the gateway writes it."""
    pairs: Headers = [(b"audit-id", b"1"), (b"authorization", b"Bearer " + token), *headers]
    return RequestBlock(b"GET", target, pairs, pass_through=True)


def refused(head: RequestBlock, policy: LocalPolicy = ALLOWED) -> Reason:
    with pytest.raises(HeadRefused) as caught:
        checked(head, policy)
    assert THEIRS.decode() not in str(caught.value)
    return caught.value.reason


def test_it_is_refused_unless_the_owner_of_the_cluster_allows_it() -> None:
    assert refused(through(), LocalPolicy()) is Reason.POLICY
    assert checked(through(), ALLOWED).pass_through


def test_the_agents_own_credential_is_never_added() -> None:
    seen = render(checked(through(), ALLOWED), SERVER, b"Bearer " + TOKEN)
    assert seen.count(b"authorization: ") == 1
    assert b"authorization: Bearer " + THEIRS in seen
    assert TOKEN not in seen


@pytest.mark.parametrize(
    "headers",
    [
        USER,
        [(b"impersonate-group", b"system:masters")],
        [(b"impersonate_user", b"x")],
        [(b"impersonate-tomorrow", b"x")],
        [(b"x-remote-user", b"admin")],
        [(b"proxy-authorization", b"Bearer x")],
        [(b"authorization", b"Bearer other")],
        [(b"sec-websocket-protocol", b"base64url.bearer.authorization.k8s.io.eA")],
    ],
)
def test_nobody_else_may_be_named_beside_the_token(headers: Headers) -> None:
    assert refused(through(*headers)) is Reason.REFUSED_HEAD


@pytest.mark.parametrize(
    "value",
    [b"", b"Bearer", b"Bearer ", b"Basic YTpi", b"Bearer a b", b"Bearer a,b", b" Bearer a", b"Bearer a\r\nx: y",
     b"Bearer  a", b"Bearer " + b"a" * 20_000, b"Bearer a; b", b"Negotiate x"],
)  # fmt: skip
def test_the_credential_is_one_bearer_token(value: bytes) -> None:
    head = RequestBlock(b"GET", b"/", [(b"audit-id", b"1"), (b"authorization", value)], pass_through=True)
    assert refused(head) is Reason.REFUSED_HEAD
    without = RequestBlock(b"GET", b"/", [(b"audit-id", b"1")], pass_through=True)
    assert refused(without) is Reason.REFUSED_HEAD


def test_a_credential_is_refused_where_it_is_no_pass_through() -> None:
    head = RequestBlock(b"GET", b"/", [*USER, (b"authorization", b"Bearer " + THEIRS)])
    assert refused(head) is Reason.REFUSED_HEAD


def test_the_owners_rules_hold_for_it_too() -> None:
    policy = LocalPolicy(allow_pass_through=True, rules=RuleSettings(read_only=True).made())
    head = through()
    head.method = b"DELETE"
    assert refused(head, policy) is Reason.POLICY


def test_a_rule_about_users_is_none_about_tokens() -> None:
    policy = LocalPolicy(allow_pass_through=True, rules=RuleSettings(deny_users=("alice",)).made())
    assert checked(through(), policy).pass_through
    assert refused(get(), policy) is Reason.POLICY


async def test_interleaved_requests_never_mix_their_credentials(before: Before) -> None:
    """The link's memory of lines, the agent's memory of heads, and one kept connection: all are shared by these."""
    seen: list[bytes] = []

    async def script(client: Client) -> None:
        while True:
            seen.append(await client.head())
            await client.say(OK)

    memory = LineMemory()
    heads = [
        RequestBlock(b"GET", b"/one", [(b"audit-id", b"0"), *USER]),
        through(target=b"/two"),
        through(token=b"another.token.x", target=b"/three"),
        RequestBlock(b"GET", b"/four", [(b"audit-id", b"0"), (b"impersonate-user", b"bob")]),
    ]
    own, theirs = b"authorization: Bearer " + TOKEN, b"authorization: Bearer " + THEIRS
    expected = [own, theirs, b"authorization: Bearer another.token.x", own]
    async with before(script) as world:
        world.policy = ALLOWED
        for number in range(24):
            head = heads[number % 4]
            head.headers[0] = (b"audit-id", b"%d" % number)
            await world.ask(decode_request(*encode_request(head, 1), memory)[1])
            lines = seen[-1].split(b"\r\n")
            assert [line for line in lines if line.startswith(b"authorization")] == [expected[number % 4]]
            assert any(line.startswith(b"impersonate") for line in lines) == (number % 4 in (0, 3))
        assert len(world.server.clients) == 1


async def test_beside_a_client_certificate_a_token_would_not_count_so_it_is_refused(before: Before) -> None:
    async with before(answering(OK), token=None) as world:
        world.policy = ALLOWED
        exchange, _ = world.start(through())
        assert exchange.reset is not None
        assert (exchange.reset.hop, exchange.reset.reason) == (Hop.AGENT, Reason.POLICY)
        assert "client certificate" in exchange.reset.message
        assert exchange.releases == 1
        assert world.pool.state.dialling == 0


async def test_an_upgrade_is_passed_through_too(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(SWITCH + b"hello")
        await client.rest()

    async with before(script) as world:
        world.policy = ALLOWED
        head = websocket()
        head.headers = [(b"authorization", b"Bearer " + THEIRS), *head.headers[len(USER) :]]
        head.pass_through = True
        exchange, relay = world.start(head)
        await exchange.until(lambda: exchange.data == b"hello")
        seen = bytes(world.server.clients[0].seen)
        assert b"authorization: Bearer " + THEIRS in seen
        assert TOKEN not in seen
        relay.on_end([])
        await exchange.over()


def of_reprs(world: World) -> str:
    return repr((through(), checked(through(), ALLOWED), world.policy))


async def test_a_token_is_in_no_repr(before: Before) -> None:
    async with before(answering(OK)) as world:
        assert THEIRS.decode() not in of_reprs(world)
