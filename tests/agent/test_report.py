"""What an agent tells of its API server's keys: once a session, again when it has changed, and bounded."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from agent.report import METHOD, NoReport, Reporting, ReportTiming, audiences, read_report
from tests.agent.apiserver import Client, Script
from tests.agent.conftest import Before
from tunnel.calls import CallFailed, Params

ISSUER = "https://kubernetes.default.svc"
JWKS = '{"keys":[{"kty":"EC"}]}'
NOW = ReportTiming(look=0.0, again=0.0, retry=0.0, answer=2.0)


def answers(**changes: tuple[int, str]) -> Script:
    known = {"discovery": (200, json.dumps({"issuer": ISSUER})), "jwks": (200, JWKS),
             "version": (200, '{"gitVersion": "v1.36.0"}')} | changes  # fmt: skip

    async def script(client: Client) -> None:
        while True:
            target = (await client.head()).split(b" ")[1].decode()
            name = {"/.well-known/openid-configuration": "discovery", "/openid/v1/jwks": "jwks"}.get(target, "version")
            code, body = known[name]
            await client.say(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (code, len(body), body.encode()))

    return script


class Told:
    """A session that writes down what it is told."""

    def __init__(self, failure: CallFailed | None = None) -> None:
        self.reports: list[Params] = []
        self.failure = failure

    async def call(self, method: str, params: Params, timeout: float = 10.0) -> Params:
        assert method == METHOD
        self.reports.append(params)
        if self.failure is not None:
            raise self.failure
        return {}


async def test_a_report_says_issuer_keys_version_and_audiences(before: Before) -> None:
    async with before(answers()) as world:
        report = await read_report(world.pool, 2.0)
        assert report == {"issuer": ISSUER, "jwks": JWKS, "version": "v1.36.0", "audiences": [ISSUER]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jwks": (403, "{}")}, "system:service-account-issuer-discovery"),
        ({"discovery": (404, "{}")}, "404"),
        ({"discovery": (200, "[]")}, "no JSON object"),
        ({"discovery": (200, "{}")}, "no issuer"),
        ({"jwks": (200, "x")}, "no JSON object"),
        ({"jwks": (200, '{"keys": "' + "x" * 40_000 + '"}')}, "bytes"),
    ],
)
async def test_what_is_no_answer_is_no_report(changes: Any, words: str, before: Before) -> None:
    async with before(answers(**changes)) as world:
        with pytest.raises(NoReport, match=words):
            await read_report(world.pool, 2.0)


async def test_each_session_is_told_once_and_again_when_something_has_changed(before: Before) -> None:
    async with before(answers()) as world:
        first, second = Told(), Told()
        sessions = [first]
        reporting = Reporting(world.pool, lambda: sessions, NOW)
        await reporting.look()
        await reporting.look()
        sessions.append(second)
        await reporting.look()
        assert (len(first.reports), len(second.reports)) == (1, 1)
        for client in world.server.clients:
            client.writer.close()
        world.server.script = answers(jwks=(200, '{"keys":[]}'))
        await reporting.look()
        await reporting.look()
        assert [len(session.reports) for session in sessions] == [2, 2]
        assert first.reports[-1]["jwks"] == '{"keys":[]}'


async def test_a_server_that_cannot_take_it_is_asked_again_and_an_older_one_is_not(before: Before) -> None:
    async with before(answers()) as world:
        busy, older = Told(CallFailed("report", "too soon")), Told(CallFailed("unknown", "what?"))
        reporting = Reporting(world.pool, lambda: [busy, older], NOW)
        for _ in range(3):
            await reporting.look()
        assert (len(busy.reports), len(older.reports)) == (3, 1)


async def test_without_a_session_nobody_is_asked(before: Before) -> None:
    async with before(answers()) as world:
        await Reporting(world.pool, list, NOW).look()
        assert not world.server.clients


def own_token(**claims: object) -> bytes:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    return b"Bearer e30." + body + b".c2ln"


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (own_token(iss=ISSUER, aud=["https://api"]), ["https://api"]),
        (own_token(iss=ISSUER, aud="https://api"), ["https://api"]),
        (own_token(iss="https://another", aud=["https://api"]), [ISSUER]),
        (own_token(iss=ISSUER, aud=[5]), [ISSUER]),
        (own_token(iss=ISSUER), [ISSUER]),
        (b"Bearer opaque", [ISSUER]),
        (b"Bearer a.!.c", [ISSUER]),
        (None, [ISSUER]),
    ],
)
def test_the_agents_own_token_says_what_the_api_server_wants(authorization: bytes | None, expected: list[str]) -> None:
    assert audiences(authorization, ISSUER) == expected


async def test_a_new_session_is_told_what_is_so_now_and_not_an_hour_ago(before: Before) -> None:
    async with before(answers()) as world:
        sessions = [Told()]
        reporting = Reporting(world.pool, lambda: sessions, ReportTiming(retry=0.0))
        await reporting.look()
        asked = sum(bytes(client.seen).count(b"GET ") for client in world.server.clients)
        await reporting.look()
        assert sum(bytes(client.seen).count(b"GET ") for client in world.server.clients) == asked
        sessions.append(Told())
        await reporting.look()
        assert sum(bytes(client.seen).count(b"GET ") for client in world.server.clients) == 2 * asked
