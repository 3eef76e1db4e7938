"""One cluster's answer poisons another's: a hostile API server, behind a real agent.

A user's connection may carry beta's answer after the hostile cluster's: what follows each trick on the same connection
is beta's own answer, or the connection's end. (What it answers to its own requests is its own affair: a late surplus
may well be the next answer of the same cluster.)
"""

from __future__ import annotations

import time

import pytest

from tests.e2e.threats.conftest import Connect
from tests.support.hostile_client import HostileClient, assert_unpoisoned, exchanged, request, together
from tests.support.hostile_platform import RECORDED
from tests.support.recording_apiserver import OK, RecordingApiServer, Reply, Wire, always, by_case

POISON = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Poison: 1\r\nContent-Length: 6\r\n\r\npoison"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EMPTY = b"0\r\n\r\n"


def later(*pieces: bytes, close: bool = False) -> Reply:
    """Pieces in segments of their own, or a close."""

    def reply(wire: Wire) -> None:
        for piece in pieces:
            wire.say(piece)
            time.sleep(0.05)
        if close:
            raise EOFError

    return reply


TRICKS: dict[str, tuple[str, Reply]] = {
    "surplus after a length": ("GET", GOOD + POISON),
    "surplus after a length, later": ("GET", later(GOOD, POISON)),
    "surplus after the last chunk": ("GET", CHUNKED + b"2\r\nok\r\n" + EMPTY + POISON),
    "surplus after the last chunk, later": ("GET", later(CHUNKED + b"2\r\nok\r\n" + EMPTY, POISON)),
    "a chunk that ends in a last chunk": ("GET", CHUNKED + b"6\r\n0\r\n\r\nX\r\n" + EMPTY),
    "a chunk that is a last chunk": ("GET", CHUNKED + b"5\r\n0\r\n\r\n\r\n" + EMPTY + POISON),
    "a length that is too short": ("GET", GOOD.replace(b"2\r\n", b"1\r\n") + POISON),
    "a length that is too long": ("GET", later(GOOD.replace(b"2\r\n", b"900\r\n"), POISON, close=True)),
    "two lengths": ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 99\r\n\r\nok"),
    "a length and chunks": ("GET", CHUNKED[:-2] + b"Content-Length: 2\r\n\r\nok"),
    "a folded length": ("GET", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok"),
    "a chunked list": ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity, chunked\r\n\r\n" + EMPTY),
    "a chunk extension": ("GET", CHUNKED + b"2;a=b\r\nok\r\n" + EMPTY),
    "a framing field as a trailer": ("GET", CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n" + POISON),
    "a body on HEAD": ("HEAD", GOOD),
    "a body on HEAD that is an answer": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + POISON),
    "a body on HEAD, later": ("HEAD", later(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n", POISON)),
    "a body on 204": ("GET", b"HTTP/1.1 204 No\r\nContent-Length: 90\r\n\r\n" + POISON),
    "a body on 204, later": ("GET", later(b"HTTP/1.1 204 No\r\nContent-Length: 90\r\n\r\n", POISON)),
    "chunks on 204": ("GET", b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + EMPTY),
    "a body on 304": ("GET", b"HTTP/1.1 304 No\r\nContent-Length: 90\r\n\r\n" + POISON),
    "two answers to one request": ("GET", GOOD + GOOD),
    "three answers, later": ("GET", later(GOOD, GOOD, GOOD)),
    "an answer before its request": ("POST", later(GOOD, POISON)),
    "17 interim answers": ("GET", b"HTTP/1.1 103 Early\r\n\r\n" * 17 + GOOD),
    "an endless row of 100": ("GET", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + GOOD),
    "an interim answer with a length": ("GET", b"HTTP/1.1 103 Early\r\nContent-Length: 90\r\n\r\n" + POISON),
    "an interim answer with chunks": ("GET", b"HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n" + EMPTY + GOOD),
    "a 101 that nobody asked for": (
        "GET",
        b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + POISON,
    ),
    "a CR in a value": ("GET", b"HTTP/1.1 200 OK\r\nX: a\r" + POISON + b"\r\nContent-Length: 0\r\n\r\n"),
    "a LF in a value": ("GET", b"HTTP/1.1 200 OK\r\nX: a\n" + POISON + b"\r\nContent-Length: 0\r\n\r\n"),
    "a NUL in a value": ("GET", b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
    "a CR in the reason": ("GET", b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n"),
    "a name with a blank": ("GET", b"HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 0\r\n\r\n"),
    "a bare LF head": ("GET", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n" + POISON),
    "an endless head": ("GET", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"),
    "too many headers": ("GET", b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 201 + b"\r\n"),
    "no HTTP": ("GET", b"SSH-2.0-OpenSSH_9.9\r\n\r\n" + POISON),
    "HTTP/0.9": ("GET", b"<html>poison"),
    "status 600": ("GET", b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n"),
    "cut in the head": ("GET", later(b"HTTP/1.1 200 OK\r\nContent-", close=True)),
    "cut in a length": ("GET", later(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok", close=True)),
    "cut before the last chunk": ("GET", later(CHUNKED + b"2\r\nok\r\n", close=True)),
    "cut in a chunk": ("GET", later(CHUNKED + b"9\r\nok", close=True)),
    "until close, with an answer in it": ("GET", later(b"HTTP/1.1 200 OK\r\n\r\n" + POISON, close=True)),
    "closed without a word": ("GET", later(close=True)),
    "reset of the framing by Connection": ("GET", GOOD.replace(b"\r\n\r\n", b"\r\nConnection: Content-Length\r\n\r\n")),
}


async def test_one_clusters_answer_poisons_anothers(connect: Connect, recorder: RecordingApiServer) -> None:
    kept = []

    async def tried(name: str, number: int, method: str) -> None:
        async with connect() as client:
            asked = request(f"/clusters/{RECORDED}/api/x?case={number}", method=method, body=b"{}" * (method == "POST"))
            await exchanged(client, asked, method)
            if await assert_unpoisoned(client):
                kept.append(name)
                assert await client.silent(0.2)

    with recorder.answering(by_case({name: reply for name, (_, reply) in TRICKS.items()})):
        await together({name: tried(name, at, TRICKS[name][0]) for at, name in enumerate(TRICKS)})
    assert len(kept) > len(TRICKS) // 2, kept  # most tricks harm nobody, not even the user's connection


async def test_one_clusters_answer_poisons_a_pipelined_one(connect: Connect, recorder: RecordingApiServer) -> None:
    """The same with both requests in one segment."""

    names = [name for name, (method, _) in TRICKS.items() if method == "GET"]
    with recorder.answering(by_case({name: TRICKS[name][1] for name in names})):
        for number, name in enumerate(names):
            async with connect() as client:
                first = request(f"/clusters/{RECORDED}/api/x?case={number}")
                second = request(f"/clusters/beta/api?second={number}")
                await client.say(first + second)
                await exchanged(client, b"")
                following = await exchanged(client, b"")
                if following is not None:
                    assert following.status == 200, name
                    assert following.json["kind"] == "APIVersions", name
                    assert following.get("x-poison") is None, name


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_answer_that_broke_off_does_not_pass_for_a_whole_one(
    method: str, client: HostileClient, recorder: RecordingApiServer
) -> None:
    with recorder.answering(always(later(CHUNKED + b"2\r\nok\r\n", close=True))):
        answer = await exchanged(client, request(f"/clusters/{RECORDED}/cut", method=method), method)
    assert answer is None or answer.status == 502


async def test_interim_answers_reach_the_client_without_framing(
    client: HostileClient, recorder: RecordingApiServer
) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\n"
    with recorder.answering(early + OK):
        await client.say(request(f"/clusters/{RECORDED}/early"))
        answer = await client.answer()
    assert (answer.status, answer.interims) == (200, (103,))
    assert (await client.whoami("beta")).user == "ada"
