"""One cluster's answer poisons another's: a hostile agent, which speaks the link protocol badly.

Each trick ends its exchange (or, where docs/protocol.md says so, the link), and what follows on the user's connection
is beta's own answer, or the connection's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from tests.e2e.threats.conftest import Attach, Connect
from tests.support.hostile_agent import (
    INTERIM,
    RESPONSE_END,
    UPGRADE,
    Gone,
    HostileAgent,
    HostileLink,
    attached,
    data,
    end,
    enrolled,
    head,
)
from tests.support.hostile_client import SWITCHED, assert_unpoisoned, exchanged, request, together, upgrade
from tests.support.hostile_platform import ThreatPlatform
from tunnel.frames import (
    ACK,
    CONTROL,
    CREDIT,
    DATA,
    FLAG_CONFIRM,
    FLAG_MORE,
    FLAG_OFFER,
    HEAD,
    MOVE,
    PING,
    RESET,
    encode,
)
from tunnel.handshake import Refused
from tunnel.messages import encode_message

POISON = b"HTTP/1.1 200 OK\r\nX-Poison: 1\r\nContent-Length: 6\r\n\r\npoison"
LENGTH_2 = b"content-length: 2"
Frames = Callable[[int], bytes]
LINK, EXCHANGE, FINE = "link", "exchange", "fine"
"""What a trick ends. FINE: nothing, since it is legal, or makes no difference."""


def _reset(x: int, payload: bytes = b"\x04\x06poison", flags: int = 0) -> bytes:
    return encode(RESET, flags, x, payload)


TRICKS: dict[str, tuple[str, str, Frames]] = {
    # --- response splitting
    "CRLF in a value": (LINK, "GET", lambda x: head(x, 200, b"x: a\r\nx-poison: 1\r\n\r\n" + POISON)),
    "CR in a value": (LINK, "GET", lambda x: head(x, 200, b"x: a\rb")),
    "LF in a value": (LINK, "GET", lambda x: head(x, 200, b"x: a\nb")),
    "NUL in a value": (LINK, "GET", lambda x: head(x, 200, b"x: a\0b")),
    "CRLF in a name": (LINK, "GET", lambda x: head(x, 200, b"x\r\ny: a")),
    "a blank in a name": (LINK, "GET", lambda x: head(x, 200, b"x y: a")),
    "a colon in a name": (LINK, "GET", lambda x: head(x, 200, b"x:y: a") + end(x)),
    "a blank before the colon": (LINK, "GET", lambda x: head(x, 200, b"x : a")),
    "an empty name": (LINK, "GET", lambda x: head(x, 200, b": a")),
    "an upper-case name": (LINK, "GET", lambda x: head(x, 200, b"Content-Length: 2")),
    "a fold": (LINK, "GET", lambda x: head(x, 200, b"x: a", b" b: c")),
    "no last CRLF": (LINK, "GET", lambda x: encode(HEAD, 0, x, b"\x00\xc8x: a")),
    "a head that goes on behind a blank line": (LINK, "GET", lambda x: head(x, 200, b"x: a", b"", b"y: b")),
    "a status line instead of a status": (LINK, "GET", lambda x: encode(HEAD, 0, x, POISON)),
    "half a status": (LINK, "GET", lambda x: encode(HEAD, 0, x, b"\x00")),
    # --- framing headers
    "transfer-encoding": (
        LINK,
        "GET",
        lambda x: head(x, 200, b"transfer-encoding: chunked") + data(x, b"0\r\n\r\n" + POISON),
    ),
    "connection": (LINK, "GET", lambda x: head(x, 200, b"connection: keep-alive")),
    "keep-alive": (LINK, "GET", lambda x: head(x, 200, b"keep-alive: timeout=999")),
    "te": (LINK, "GET", lambda x: head(x, 200, b"te: trailers")),
    "trailer": (LINK, "GET", lambda x: head(x, 200, b"trailer: x")),
    "upgrade without its flag": (LINK, "GET", lambda x: head(x, 200, b"upgrade: websocket")),
    "two content-lengths": (
        EXCHANGE,
        "GET",
        lambda x: head(x, 200, LENGTH_2, b"content-length: 99") + data(x, b"ok", end=True),
    ),
    "two equal content-lengths": (
        EXCHANGE,
        "GET",
        lambda x: head(x, 200, LENGTH_2, LENGTH_2) + data(x, b"ok", end=True),
    ),
    "a list of content-lengths": (
        EXCHANGE,
        "GET",
        lambda x: head(x, 200, b"content-length: 2, 2") + data(x, b"ok", end=True),
    ),
    "a signed content-length": (
        EXCHANGE,
        "GET",
        lambda x: head(x, 200, b"content-length: +2") + data(x, b"ok", end=True),
    ),
    "a content-length of 30 digits": (
        EXCHANGE,
        "GET",
        lambda x: head(x, 200, b"content-length: " + b"9" * 30) + end(x),
    ),
    # --- bodies
    "shorter than its content-length": (
        EXCHANGE,
        "GET",
        lambda x: head(x, 200, b"content-length: 99") + data(x, b"ok", end=True),
    ),
    "longer than its content-length": (
        EXCHANGE,
        "GET",
        lambda x: head(x, 200, LENGTH_2) + data(x, b"ok" + POISON, end=True),
    ),
    "longer, in a frame of its own": (
        EXCHANGE,
        "GET",
        lambda x: head(x, 200, LENGTH_2) + data(x, b"ok") + data(x, POISON, end=True),
    ),
    "a chunk that ends in a last chunk": (
        FINE,
        "GET",
        lambda x: head(x, 200) + data(x, b"0\r\n\r\n") + data(x, b"\r\n0\r\n\r\n", end=True),
    ),
    "a body that is an answer": (FINE, "GET", lambda x: head(x, 200) + data(x, b"0\r\n\r\n" + POISON, end=True)),
    "a body on HEAD": (EXCHANGE, "HEAD", lambda x: head(x, 200) + data(x, POISON, end=True)),
    "a body on HEAD with its length": (
        EXCHANGE,
        "HEAD",
        lambda x: head(x, 200, b"content-length: 68") + data(x, POISON, end=True),
    ),
    "a body on 204": (EXCHANGE, "GET", lambda x: head(x, 204) + data(x, POISON, end=True)),
    "a body on 304": (EXCHANGE, "GET", lambda x: head(x, 304) + data(x, POISON, end=True)),
    "a length on 204": (FINE, "GET", lambda x: head(x, 204, b"content-length: 68", flags=RESPONSE_END)),
    "a length, and no body": (EXCHANGE, "GET", lambda x: head(x, 200, b"content-length: 68", flags=RESPONSE_END)),
    "a length on HEAD": (FINE, "HEAD", lambda x: head(x, 200, b"content-length: 68", flags=RESPONSE_END)),
    "a body of nothing": (LINK, "GET", lambda x: head(x, 200) + data(x, b"")),
    # --- states
    "two answers to one request": (
        LINK,
        "GET",
        lambda x: head(x, 200, LENGTH_2) + head(x, 200, LENGTH_2) + data(x, b"ok", end=True),
    ),
    "a second answer after the end": (FINE, "GET", lambda x: (head(x, 200, LENGTH_2) + data(x, b"ok", end=True)) * 2),
    "DATA after END": (FINE, "GET", lambda x: head(x, 200, LENGTH_2) + data(x, b"ok", end=True) + data(x, POISON)),
    "END after END": (FINE, "GET", lambda x: head(x, 200, LENGTH_2) + data(x, b"ok", end=True) + end(x)),
    "DATA after END, the request under way": (
        FINE,
        "POST",
        lambda x: head(x, 200, LENGTH_2) + data(x, b"ok", end=True) + data(x, POISON),
    ),
    "END before HEAD": (LINK, "GET", end),
    "DATA before HEAD": (LINK, "GET", lambda x: data(x, POISON)),
    "17 interim answers": (LINK, "GET", lambda x: head(x, 103, flags=INTERIM) * 17),
    "an interim answer after the final one": (LINK, "GET", lambda x: head(x, 200) + head(x, 103, flags=INTERIM)),
    "an interim answer that ends": (LINK, "GET", lambda x: head(x, 103, flags=INTERIM | RESPONSE_END)),
    "a 200 that calls itself interim": (LINK, "GET", lambda x: head(x, 200, flags=INTERIM)),
    "a 103 that calls itself final": (LINK, "GET", lambda x: head(x, 103)),
    "a 101 that calls itself interim": (LINK, "GET", lambda x: head(x, 101, flags=INTERIM)),
    "status 0": (LINK, "GET", lambda x: head(x, 0)),
    "status 99": (LINK, "GET", lambda x: head(x, 99)),
    "status 1000": (LINK, "GET", lambda x: head(x, 1000)),
    # --- upgrades
    "101 to a plain request": (
        EXCHANGE,
        "GET",
        lambda x: head(x, 101, b"upgrade: websocket", flags=UPGRADE) + data(x, POISON),
    ),
    "101 without upgrade": (LINK, "GET", lambda x: head(x, 101, flags=UPGRADE) + data(x, POISON)),
    "101 to h2c": (LINK, "GET", lambda x: head(x, 101, b"upgrade: h2c", flags=UPGRADE)),
    "101 with two upgrades": (
        LINK,
        "GET",
        lambda x: head(x, 101, b"upgrade: websocket", b"upgrade: spdy/3.1", flags=UPGRADE),
    ),
    "101 without the flag": (LINK, "GET", lambda x: head(x, 101, b"upgrade: websocket")),
    "200 with the flag": (LINK, "GET", lambda x: head(x, 200, b"upgrade: websocket", flags=UPGRADE)),
    # --- trailers
    "a CRLF in a trailer": (LINK, "GET", lambda x: head(x, 200) + end(x, b"x: a\r\n\r\n" + POISON)),
    "a framing field as a trailer": (LINK, "GET", lambda x: head(x, 200) + end(x, b"transfer-encoding: chunked\r\n")),
    "a content-length as a trailer": (FINE, "GET", lambda x: head(x, 200) + end(x, b"content-length: 99\r\n")),
    "a cookie as a trailer": (FINE, "GET", lambda x: head(x, 200) + end(x, b"set-cookie: a=poison\r\n")),
    "too many trailers": (LINK, "GET", lambda x: head(x, 200) + end(x, b"x: a\r\n" * 33)),
    # --- other exchanges
    "an exchange that was never opened": (LINK, "GET", lambda x: head(x + 1000, 200)),
    "exchange 0": (LINK, "GET", lambda _x: head(0, 200)),
    "the highest id there is": (LINK, "GET", lambda _x: head(2**64 - 1, 200)),
    "DATA of a strange exchange": (LINK, "GET", lambda x: data(x + 7, POISON)),
    # --- RESET, credit, MOVE, control
    "RESET": (EXCHANGE, "GET", _reset),
    "RESET in mid-answer": (
        EXCHANGE,
        "GET",
        lambda x: head(x, 200, b"content-length: 99") + data(x, b"ok") + _reset(x),
    ),
    "RESET from nowhere": (LINK, "GET", lambda x: _reset(x, b"\xff\x00")),
    "RESET without a reason": (LINK, "GET", lambda x: _reset(x, b"\x04")),
    "RESET with an essay": (LINK, "GET", lambda x: _reset(x, b"\x04\x06" + b"a" * 2000)),
    "RESET with line breaks": (EXCHANGE, "GET", lambda x: _reset(x, b"\x04\x06a\r\n\r\n" + POISON)),
    "RESET+ACK of nothing": (LINK, "GET", lambda x: _reset(x, b"", 1)),
    "RESET of a strange exchange": (LINK, "GET", lambda x: _reset(x + 7)),
    "credit without end": (
        FINE,
        "GET",
        lambda x: encode(CREDIT, 0, x, b"\xff" * 8) + head(x, 200, LENGTH_2) + data(x, b"ok", end=True),
    ),
    "credit taken back": (
        FINE,
        "GET",
        lambda x: encode(CREDIT, 0, x, b"\0" * 8) + head(x, 200, LENGTH_2) + data(x, b"ok", end=True),
    ),
    "credit of 3 bytes": (LINK, "GET", lambda x: encode(CREDIT, 0, x, b"abc")),
    "credit for a strange exchange": (LINK, "GET", lambda x: encode(CREDIT, 0, x + 7, b"\0" * 8)),
    "more than its credit": (LINK, "GET", lambda x: head(x, 200) + data(x, b"a" * 65_536) * 40),
    "MOVE that was not offered": (LINK, "GET", lambda x: encode(MOVE, 0, x)),
    "MOVE+OFFER on the shared link": (LINK, "GET", lambda x: encode(MOVE, FLAG_OFFER, x)),
    "MOVE+CONFIRM, the stub's": (LINK, "GET", lambda x: encode(MOVE, FLAG_CONFIRM, x)),
    "MOVE of a strange exchange": (LINK, "GET", lambda x: encode(MOVE, 0, x + 7)),
    "MOVE with a payload": (LINK, "GET", lambda x: encode(MOVE, 0, x, b"x")),
    "ACK of what was never opened": (LINK, "GET", lambda x: encode(ACK, 0, x + 7)),
    "PING of 3 bytes": (LINK, "GET", lambda _x: encode(PING, 0, 0, b"abc")),
    "a flood of PINGs": (LINK, "GET", lambda _x: encode(PING, 0, 0, b"12345678") * 2_000),
    "a message that is no JSON": (LINK, "GET", lambda _x: encode(CONTROL, 0, 0, b"poison")),
    "a message with a field twice": (LINK, "GET", lambda _x: encode(CONTROL, 0, 0, b'{"kind":"a","kind":"drain"}')),
    "another hello": (
        FINE,
        "GET",
        lambda x: encode(CONTROL, 0, 0, encode_message("hello")) + head(x, 200, LENGTH_2) + data(x, b"ok", end=True),
    ),
    "an unknown frame": (LINK, "GET", lambda x: encode(0x20, 0, x)),
    "an unknown frame that may be skipped": (
        FINE,
        "GET",
        lambda x: encode(0x99, 0, x) + head(x, 200, LENGTH_2) + data(x, b"ok", end=True),
    ),
    "a frame of 2 MiB": (LINK, "GET", lambda x: encode(DATA, 0, x, b"a" * 2_097_152)),
    # --- heads
    "a huge head": (LINK, "GET", lambda x: _fragments(x, b"\x00\xc8" + b"x: " + b"a" * 120_000 + b"\r\n")),
    "too many headers": (LINK, "GET", lambda x: _fragments(x, b"\x00\xc8" + b"x: a\r\n" * 1_001)),
    "a frame between fragments": (LINK, "GET", lambda x: encode(HEAD, FLAG_MORE, x, b"\x00\xc8") + encode(ACK, 0, x)),
    "fragments of two heads": (LINK, "GET", lambda x: encode(HEAD, FLAG_MORE, x, b"\x00\xc8") + head(x + 1, 200)),
    "an empty fragment": (LINK, "GET", lambda x: encode(HEAD, FLAG_MORE, x)),
}


def _fragments(x: int, block: bytes) -> bytes:
    pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
    return b"".join(encode(HEAD, FLAG_MORE * (piece is not pieces[-1]), x, piece) for piece in pieces)


async def test_one_clusters_answer_poisons_anothers(attach: Attach, connect: Connect) -> None:
    async def tried(name: str) -> None:
        ends, method, frames = TRICKS[name]
        async with attach() as (agent, cluster), connect() as client:
            unfinished = ("Content-Length: 5",) if method == "POST" else ()
            asked = asyncio.ensure_future(
                exchanged(client, request(f"/clusters/{cluster}/x", *unfinished, method=method), method)
            )
            agent.say(frames((await agent.request()).id))
            answer = await asked
            if answer is not None:
                assert answer.get("x-poison") is None
                assert answer.all("set-cookie") == []
                assert answer.all("content-length") in ([], [str(len(answer.body))], ["68"] * (method == "HEAD"))
                empty = method == "HEAD" or answer.status in (204, 304)
                assert ends == FINE or answer.status >= 500 or answer.body == b"ok" or empty, answer
            else:
                assert ends != FINE, "cut"
            assert not await assert_unpoisoned(client) or ends != EXCHANGE or answer is None or answer.status >= 500
            assert (await _lives(agent, cluster, connect)) is (ends != LINK), f"not what it ends: {ends}"

    await together({name: tried(name) for name in TRICKS})


async def _lives(agent: HostileAgent, cluster: str, connect: Connect) -> bool:
    """Whether the session still takes requests."""
    async with connect() as client:
        asked = asyncio.ensure_future(exchanged(client, request(f"/clusters/{cluster}/lives")))
        try:
            while (found := await agent.request()).line != b"GET /lives":
                pass
            agent.say(head(found.id, 200, LENGTH_2), data(found.id, b"ok", end=True))
            answer = await asked
            return answer is not None and answer.body == b"ok"
        except (Gone, ConnectionError):
            answer = await asked
            assert answer is not None
            assert answer.status in (502, 503)
            return False
        finally:
            asked.cancel()


SWITCHES: dict[str, Frames] = {
    "another protocol": lambda x: head(x, 101, b"upgrade: spdy/3.1", flags=UPGRADE) + data(x, POISON),
    "200, and a stream": lambda x: head(x, 200) + data(x, POISON),
    "403, and a second answer": lambda x: head(x, 403, LENGTH_2) + data(x, b"no", end=True) + data(x, POISON),
    "two 101": lambda x: head(x, 101, b"upgrade: websocket", flags=UPGRADE) * 2 + data(x, POISON),
    "101, then an answer": lambda x: (
        head(x, 101, b"upgrade: websocket", flags=UPGRADE) + head(x, 200) + data(x, POISON)
    ),
    "101 after 200": lambda x: head(x, 200) + head(x, 101, b"upgrade: websocket", flags=UPGRADE) + data(x, POISON),
    "101 with a length": lambda x: head(x, 101, b"upgrade: websocket", b"content-length: 3", flags=UPGRADE) + end(x),
    "101, the end, and more": lambda x: head(x, 101, b"upgrade: websocket", flags=UPGRADE) + end(x) + data(x, POISON),
}


async def test_an_upgrade_leaves_no_connection_behind(attach: Attach, connect: Connect) -> None:
    """Whatever the agent says to an upgrade: the user's connection serves no second request."""

    async def tried(name: str) -> None:
        async with attach() as (agent, cluster), connect() as client:
            path = f"/clusters/{cluster}/api/v1/namespaces/x/pods/y/exec"
            await client.say(upgrade(path) + request("/clusters/beta/api"))
            found = await agent.request()
            agent.say(SWITCHES[name](found.id))
            await asyncio.sleep(0.2)
            await client.say(request("/clusters/beta/api"))
            agent.say(end(found.id)) if name == "200, and a stream" else None
            said = await client.rest()
            assert b"APIVersions" not in said
            assert said.count(b"HTTP/1.1 ") - said.count(POISON) == 1, said

    await together({name: tried(name) for name in SWITCHES})


async def test_frames_for_another_sessions_exchange(attach: Attach, connect: Connect) -> None:
    """Ids are a session's own: an agent that knows all of them reaches nobody else's."""
    async with attach() as (victim, cluster), attach() as (agent, _), connect() as client:
        asked = asyncio.ensure_future(exchanged(client, request(f"/clusters/{cluster}/x")))
        found = await victim.request()
        agent.say(head(found.id, 200, b"x-poison: 1"), data(found.id, POISON, end=True))
        assert await agent.gone()
        victim.say(head(found.id, 200, LENGTH_2), data(found.id, b"ok", end=True))
        answer = await asked
        assert answer is not None
        assert answer.body == b"ok"


async def test_another_sessions_own_link(threat_platform: ThreatPlatform, attach: Attach, connect: Connect) -> None:
    port, tls = threat_platform.agents_port, threat_platform.context()
    async with attach() as (victim, cluster), attach() as (agent, _):
        strange = await HostileLink.dial(port, tls)
        hello = await agent.own_hello(strange, 1, victim.session)
        strange.say(encode(CONTROL, payload=hello.encode()))
        refused = await strange.next()
        assert b'"refused"' in refused.payload
        assert await strange.gone()
        await strange.close()
        # Its own own link carries frames of its own session alone, and one exchange at a time.
        own = await agent.own(port, tls, 1)
        async with connect() as client:
            asked = asyncio.ensure_future(exchanged(client, request(f"/clusters/{cluster}/x")))
            found = await victim.request()
            own.say(encode(MOVE, FLAG_OFFER, found.id))
            assert await own.gone()
            victim.say(head(found.id, 200, LENGTH_2), data(found.id, b"ok", end=True))
            answer = await asked
            assert answer is not None
            assert answer.body == b"ok"
        await own.close()


OWN: dict[str, Frames] = {
    "HEAD without a MOVE": lambda x: head(x, 200, b"x-poison: 1") + end(x),
    "DATA without a MOVE": lambda x: data(x, POISON),
    "an offer of a strange exchange": lambda x: encode(MOVE, FLAG_OFFER, x + 7),
    "two offers": lambda x: encode(MOVE, FLAG_OFFER, x) * 2,
    "a control message": lambda _x: encode(CONTROL, 0, 0, encode_message("health", ready=True)),
    "an offer, and another exchange's frames": lambda x: encode(MOVE, FLAG_OFFER, x) + head(x + 7, 200),
}


async def test_nonsense_on_an_own_link(threat_platform: ThreatPlatform, attach: Attach, connect: Connect) -> None:
    port, tls = threat_platform.agents_port, threat_platform.context()

    async def tried(name: str) -> None:
        async with attach() as (agent, cluster), connect() as client:
            own = await agent.own(port, tls, 1)
            asked = asyncio.ensure_future(exchanged(client, request(f"/clusters/{cluster}/x")))
            own.say(OWN[name]((await agent.request()).id))
            assert await own.gone()
            await agent.close()
            answer = await asked
            assert answer is None or (answer.status >= 500 and answer.get("x-poison") is None)
            await assert_unpoisoned(client)
            await own.close()

    await together({name: tried(name) for name in OWN})


async def test_a_replayed_hello(threat_platform: ThreatPlatform) -> None:
    """A hello answers one challenge; a used linkId is refused with the right proof too."""
    port, tls = threat_platform.agents_port, threat_platform.context()
    name, token = threat_platform.rogue()
    identity = await enrolled(port, tls, token, name, "uid")
    first = await HostileAgent.dial(port, tls)
    hello = first.hello(await first.challenge(), identity, name, "uid").encode()
    first.say(encode(CONTROL, payload=hello))
    assert b'"welcome"' in (await first.next()).payload
    again = await HostileAgent.dial(port, tls)
    await again.challenge()
    again.say(encode(CONTROL, payload=hello))
    assert b'"refused"' in (await again.next()).payload
    assert await again.gone()
    await first.close()
    await again.close()

    other, other_token = threat_platform.rogue()
    async with attached(port, tls, other_token, other, "uid") as agent:
        own = await agent.own(port, tls, 5)
        twice = await HostileLink.dial(port, tls)
        twice.say(encode(CONTROL, payload=(await agent.own_hello(twice, 5)).encode()))
        assert await twice.gone()
        assert not await _ended(own)
        await own.close()
        await twice.close()


async def _ended(link: HostileLink) -> bool:
    try:
        async with asyncio.timeout(0.3):
            return await link.gone()
    except TimeoutError:
        return False


async def test_an_agent_takes_another_clusters_name(threat_platform: ThreatPlatform, connect: Connect) -> None:
    """CVE-2024-56513; konnectivity's self-asserted identifiers."""
    port, tls = threat_platform.agents_port, threat_platform.context()
    name, token = threat_platform.rogue()
    with pytest.raises(Refused):
        await enrolled(port, tls, token, "beta", "uid")
    identity = await enrolled(port, tls, token, name, "uid")
    cases: dict[str, dict[str, Any]] = {
        "proven for beta": {"cluster": "beta"},
        "proven for its own, told beta": {"cluster": name, "told": "beta"},
        "proven for beta, told its own": {"cluster": "beta", "told": name},
        "a pattern": {"cluster": "*"},
    }
    for case, fields in cases.items():
        agent = await HostileAgent.dial(port, tls)
        hello = agent.hello(await agent.challenge(), identity, cluster_id="uid", **fields)
        agent.say(encode(CONTROL, payload=hello.encode()))
        assert b'"refused"' in (await agent.next()).payload, case
        assert await agent.gone()
        await agent.close()
    for uid in ("uid", "another-uid"):
        with nullcontext() if uid == "uid" else pytest.raises(Refused):
            async with attached(port, tls, token, name, uid):
                pass
    async with connect() as client:
        assert (await client.whoami("beta")).user == "ada"


async def test_something_else_than_hello_before_the_welcome(threat_platform: ThreatPlatform) -> None:
    port, tls = threat_platform.agents_port, threat_platform.context()
    frames = {
        "a HEAD": head(1, 200),
        "a long hello": encode(CONTROL, payload=b" " * 9_000),
        "no JSON": encode(CONTROL, payload=b"x"),
        "a PING": encode(PING, 0, 0, b"12345678"),
        "bytes": SWITCHED,
    }
    for name, said in frames.items():
        link = await HostileAgent.dial(port, tls)
        await link.challenge()
        link.say(said)
        assert await link.gone(), name
        await link.close()
