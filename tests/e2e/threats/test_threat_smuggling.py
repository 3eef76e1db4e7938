"""Request smuggling: what two parsers may read in two ways is refused, on both doors, with its connection."""

from __future__ import annotations

import re

import pytest

from tests.e2e.threats.conftest import Connect
from tests.support.hostile_client import KEY, HostileClient, connected, request, together
from tests.support.hostile_platform import RECORDED, ThreatPlatform
from tests.support.recording_apiserver import RecordingApiServer
from tunnel.handshake import PATH, SUBPROTOCOL

P = b"/clusters/" + RECORDED.encode()
SECOND = b"GET " + P + b"/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST " + P + b"/first HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET " + P + b"/first HTTP/1.1\r\nHost: localhost\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
EMPTY = b"0\r\n\r\n"

HEADS = {
    "CL+TE": POST + b"Content-Length: 5\r\n" + TE + b"\r\n" + EMPTY,
    "TE+CL": POST + TE + b"Content-Length: 5\r\n\r\n" + EMPTY,
    "CL 0 + TE": POST + b"Content-Length: 0\r\n" + TE + b"\r\n" + EMPTY,
    "TE identity": POST + b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
    "TE list": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + EMPTY,
    "TE chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + EMPTY,
    "TE twice": POST + TE + TE + b"\r\n" + EMPTY,
    "TE twice, the second false": POST + TE + b"Transfer-Encoding: x\r\n\r\n" + EMPTY,
    "TE quoted": POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + EMPTY,
    "TE with a parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + EMPTY,
    "TE xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + EMPTY,
    "TE with a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + EMPTY,
    "TE with a trailing comma": POST + b"Transfer-Encoding: chunked,\r\n\r\n" + EMPTY,
    "TE empty": POST + b"Transfer-Encoding:\r\n\r\n" + EMPTY,
    "TE folded": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + EMPTY,
    "TE with a blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + EMPTY,
    "TE after a NUL": POST + b"X: a\x00Transfer-Encoding: chunked\r\n\r\n" + EMPTY,
    "TE in HTTP/1.0": POST.replace(b"1.1", b"1.0") + TE + b"\r\n" + EMPTY,
    "two CLs": POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "two equal CLs": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of CLs": POST + b"Content-Length: 0, 0\r\n\r\n",
    "CL +0": POST + b"Content-Length: +0\r\n\r\n",
    "CL -1": POST + b"Content-Length: -1\r\n\r\n",
    "CL 0x0": POST + b"Content-Length: 0x0\r\n\r\n",
    "CL 0_0": POST + b"Content-Length: 0_0\r\n\r\n",
    "CL 0 0": POST + b"Content-Length: 0 0\r\n\r\n",
    "CL empty": POST + b"Content-Length:\r\n\r\n",
    "CL beyond 64 bits": POST + b"Content-Length: 18446744073709551616\r\n\r\n",
    "CL not ASCII": POST + b"Content-Length: \xd9\xa0\r\n\r\n",
    "CL with a blank before the colon": POST + b"Content-Length : 0\r\n\r\n",
    "obs-fold": GET + b"X: a\r\n b\r\n\r\n",
    "obs-fold by tab": GET + b"X: a\r\n\tb\r\n\r\n",
    "obs-fold first": b"GET " + P + b"/first HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "bare LF in a head": GET.replace(b"\r\n", b"\n") + b"\n",
    "one bare LF": GET + b"X: a\nY: b\r\n\r\n",
    "bare LF at the end": GET + b"X: a\r\n\n",
    "bare CR": GET + b"X: a\rY: b\r\n\r\n",
    "bare CR before CRLF": GET + b"X: a\r\r\n\r\n",
    "NUL": GET + b"X: a\x00b\r\n\r\n",
    "duplicate Host": GET + b"Host: localhost\r\n\r\n",
    "two Hosts": GET + b"Host: alpha.kulvert.test\r\n\r\n",
    "no Host": GET.replace(b"Host: localhost\r\n", b"") + b"\r\n",
    "an empty Host": GET.replace(b"localhost", b"") + b"\r\n",
    "a Host with a path": GET.replace(b"localhost", b"localhost/x") + b"\r\n",
    "a Host with a user": GET.replace(b"localhost", b"a@localhost") + b"\r\n",
    "a blank before the colon": GET + b"X : a\r\n\r\n",
    "a tab before the colon": GET + b"X\t: a\r\n\r\n",
    "no colon": GET + b"X\r\n\r\n",
    "no name": GET + b": a\r\n\r\n",
    "a name with a blank": GET + b"X Y: a\r\n\r\n",
    "a name that is not ASCII": GET + b"X\xe9: a\r\n\r\n",
    "absolute form": b"GET https://beta.kulvert.test" + P + b"/first HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a blank in the target": b"GET " + P + b"/first x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two blanks": b"GET  " + P + b"/first HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tab in the request line": b"GET\t" + P + b"/first HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/0.9": b"GET " + P + b"/first\r\n\r\n",
    "HTTP/2.0": GET.replace(b"1.1", b"2.0") + b"\r\n",
    "HTTP/1.2": GET.replace(b"1.1", b"1.2") + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a lower-case method": GET.replace(b"GET", b"get") + b"\r\n",
    "CONNECT": GET.replace(b"GET", b"CONNECT") + b"\r\n",
    "TRACE": GET.replace(b"GET", b"TRACE") + b"\r\n",
    "an expectation": GET + b"Expect: 200-maybe\r\n\r\n",
    "a body on an upgrade": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello",
    "two Authorizations": GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "empty lines first, then a blank": b"\r\n \r\n" + GET + b"\r\n",
    "too many headers": GET + b"X: a\r\n" * 201 + b"\r\n",
    "an endless head": GET + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "an endless target": b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
}
BODIES = {
    "a chunk extension": TE + b"\r\n2;a=b\r\n{}\r\n" + EMPTY,
    "an extension of the last chunk": TE + b"\r\n2\r\n{}\r\n0;a=b\r\n\r\n",
    "a quoted extension with CRLF": TE + b'\r\n2;a="\r\n"\r\n{}\r\n' + EMPTY,
    "a blank after the size": TE + b"\r\n2 \r\n{}\r\n" + EMPTY,
    "0x": TE + b"\r\n0x2\r\n{}\r\n" + EMPTY,
    "a sign": TE + b"\r\n+2\r\n{}\r\n" + EMPTY,
    "bare LF after the size": TE + b"\r\n2\n{}\r\n" + EMPTY,
    "bare LF after the chunk": TE + b"\r\n2\r\n{}\n" + EMPTY,
    "a longer chunk than its size": TE + b"\r\n1\r\n{}\r\n" + EMPTY,
    "a size beyond 64 bits": TE + b"\r\n10000000000000002\r\n{}\r\n" + EMPTY,
    "a framing field as a trailer": TE + b"\r\n2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a host as a trailer": TE + b"\r\n2\r\n{}\r\n0\r\nHost: beta\r\n\r\n",
    "an identity as a trailer": TE + b"\r\n2\r\n{}\r\n0\r\nImpersonate-User: admin\r\n\r\n",
    "an authorization as a trailer": TE + b"\r\n2\r\n{}\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
    "a folded trailer": TE + b"\r\n2\r\n{}\r\n0\r\nX: a\r\n b\r\n\r\n",
    "a bare LF in a trailer": TE + b"\r\n2\r\n{}\r\n0\r\nX: a\n\r\n\r\n",
    "a trailer with a blank before the colon": TE + b"\r\n2\r\n{}\r\n0\r\nX : a\r\n\r\n",
}


async def test_request_smuggling_at_the_users_door(connect: Connect, recorder: RecordingApiServer) -> None:
    """aiohttp CVE-2026-34525 (duplicate Host), and every other ambiguity of a head."""
    before = len(recorder.requests)

    async def refused(head: bytes) -> None:
        async with connect() as client:
            await client.say(head + SECOND)
            answer = await client.answer()
            assert answer.status in (400, 411, 413, 414, 417, 431, 501, 505), answer
            assert answer.get("connection") == "close"
            assert await client.rest() == b""

    await together({name: refused(head) for name, head in HEADS.items()})
    assert len(recorder.requests) == before


async def test_a_body_that_ends_in_two_places(connect: Connect, recorder: RecordingApiServer) -> None:
    """aiohttp CVE-2025-53643 (trailers), chunk extensions. The head is under way; what follows it must not be."""

    async def refused(body: bytes) -> None:
        async with connect() as client:
            await client.say(POST + body + SECOND)
            assert (await client.answer()).status >= 400
            assert await client.rest() == b""

    await together({name: refused(body) for name, body in BODIES.items()})
    assert not recorder.find(b"/smuggled")


async def test_a_harmless_trailer_is_dropped_and_the_next_request_is_its_own(
    client: HostileClient, recorder: RecordingApiServer
) -> None:
    """So that the tests above cannot pass by refusing every body."""
    await client.say(POST.replace(b"first", b"chunks") + TE + b"\r\n2\r\n{}\r\n0\r\nX-Sum: a\r\n\r\n" + SECOND)
    assert (await client.answer()).status == 200
    assert (await client.answer()).status == 200
    assert recorder.find(b"/chunks")[-1].body == b"{}"
    assert b"X-Sum" not in recorder.said
    assert recorder.find(b"/smuggled")[-1].all(b"impersonate-user") == [b"ada"]
    recorder.requests.remove(recorder.find(b"/smuggled")[-1])


async def test_what_is_sent_upstream_is_framed_anew(client: HostileClient, recorder: RecordingApiServer) -> None:
    """Whatever the spelling of a legal head, the API server gets one spelling."""
    head = POST.replace(b"first", b"anew") + b"tRANSFER-eNCODING:\tCHUNKED \r\nX:\r\n\r\n"
    await client.say(head + b"1\r\n{\r\n01\r\n}\r\n00\r\n\r\n")
    assert (await client.answer()).status == 200
    one = recorder.find(b"/anew")[-1]
    assert (one.body, one.all(b"transfer-encoding"), one.all(b"content-length")) == (b"{}", [b"chunked"], [])
    await client.say(request("/clusters/recorded/anew", "Content-Type: a/b", method="PUT", body=b"{}"))
    assert (await client.answer()).status == 200
    one = recorder.find(b"/anew")[-1]
    assert (one.body, one.all(b"transfer-encoding"), one.all(b"content-length")) == (b"{}", [], [b"2"])


LINK = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n".encode()
WEBSOCKET = (
    f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
).encode()
DOOR = {
    "CL+TE": LINK + WEBSOCKET + b"Content-Length: 5\r\n" + TE + b"\r\n" + EMPTY,
    "TE": LINK + WEBSOCKET + TE + b"\r\n" + EMPTY,
    "TE folded": LINK + WEBSOCKET + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + EMPTY,
    "TE with a blank before the colon": LINK + WEBSOCKET + b"Transfer-Encoding : chunked\r\n\r\n" + EMPTY,
    "a body": LINK + WEBSOCKET + b"Content-Length: 5\r\n\r\nhello",
    "two CLs": LINK + WEBSOCKET + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "CL +0": LINK + WEBSOCKET + b"Content-Length: +0\r\n\r\n",
    "obs-fold": LINK + WEBSOCKET + b"X: a\r\n b\r\n\r\n",
    "bare LF": (LINK + WEBSOCKET).replace(b"\r\n", b"\n") + b"\n",
    "one bare LF": LINK + WEBSOCKET + b"X: a\nY: b\r\n\r\n",
    "bare CR": LINK + WEBSOCKET + b"X: a\rY: b\r\n\r\n",
    "duplicate Host": LINK + WEBSOCKET + b"Host: localhost\r\n\r\n",
    "two Hosts": LINK + WEBSOCKET + b"Host: elsewhere.test\r\n\r\n",
    "no Host": LINK.replace(b"Host: localhost\r\n", b"") + WEBSOCKET + b"\r\n",
    "a blank before the colon": LINK + WEBSOCKET + b"X : a\r\n\r\n",
    "NUL": LINK + WEBSOCKET + b"X: a\x00b\r\n\r\n",
    "a name that is not ASCII": LINK + WEBSOCKET + b"X\xe9: a\r\n\r\n",
    "absolute form": LINK.replace(PATH.encode(), b"https://localhost" + PATH.encode()) + WEBSOCKET + b"\r\n",
    "two keys": LINK + WEBSOCKET + f"Sec-WebSocket-Key: {KEY}\r\n\r\n".encode(),
    "HTTP/1.0": LINK.replace(b"1.1", b"1.0") + WEBSOCKET + b"\r\n",
    "HTTP/1.2": LINK.replace(b"1.1", b"1.2") + WEBSOCKET + b"\r\n",
    "POST": LINK.replace(b"GET", b"POST") + WEBSOCKET + b"\r\n",
    "too many headers": LINK + WEBSOCKET + b"X: a\r\n" * 300 + b"\r\n",
    "an endless head": LINK + WEBSOCKET + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
}


async def test_request_smuggling_at_the_agents_door(threat_platform: ThreatPlatform) -> None:
    async def refused(head: bytes) -> None:
        async with connected(threat_platform.agents_port, threat_platform.context()) as client:
            await client.say(head + SECOND)
            said = await client.rest()
            assert b" 101 " not in said
            assert len(re.findall(rb"HTTP/1\.1 [1-5]\d\d ", said)) <= 1
            assert not said or 400 <= int(said[9:12]) < 600

    await together({name: refused(head) for name, head in DOOR.items()})


async def test_the_agents_door_opens_to_the_right_head(threat_platform: ThreatPlatform) -> None:
    """So that the test above cannot pass by refusing all of them."""
    async with connected(threat_platform.agents_port, threat_platform.context()) as client:
        await client.say(LINK + WEBSOCKET + b"\r\n")
        assert (await client.answer()).status == 101
        assert b'"kind": "challenge"' in await client.some(80)


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_a_head_in_pieces_is_the_same_head(
    size: int, client: HostileClient, recorder: RecordingApiServer
) -> None:
    head = GET.replace(b"first", b"pieces") + b"Connection: Impersonate-User\r\n\r\n"
    for at in range(0, len(head), size):
        await client.say(head[at : at + size])
    assert (await client.answer()).status == 200
    assert recorder.find(b"/pieces")[-1].all(b"impersonate-user") == [b"ada"]
