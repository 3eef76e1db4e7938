"""Where kubectl reads no Status (its discovery), the message of a failure goes along as a Warning, and only there."""

from __future__ import annotations

import pytest

from stub.errors import AgentSilent, NoAgent
from tests.gateway.answers import read
from tests.gateway.gate import HEADS, gate, settle
from tests.gateway.wire import FakeExchange
from tunnel.errors import ExchangeReset, Hop, Reason


@pytest.mark.parametrize(
    ("target", "warned"),
    [
        (b"/clusters/other/api", True),
        (b"/clusters/other/apis?timeout=32s", True),
        (b"/clusters/other/api/v1/pods", False),
        (b"/clusters/gone/api", True),
        (b"/clusters/gone/api/v1/pods", False),
    ],
)
async def test_a_refusal_is_told_twice_where_its_body_is_not_read(target: bytes, warned: bool) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"GET " + target + b" HTTP/1.1\r\n" + HEADS + b"\r\n")
        await settle()
        (got,) = read(wire.take())
        assert got.status in (403, 404)
        assert ("warning" in got.headers) == warned
        if warned:
            assert got.headers["warning"] == f'299 - "{got.json["message"]}"'


async def test_failures_of_the_stub_and_of_the_exchange_are_warned_of_too() -> None:
    async with gate() as g:
        for refusal in (NoAgent("a", "none"), AgentSilent("a", "silent")):
            g.clusters.refuse.append(refusal)
            wire = g.connect()
            wire.send(b"GET /clusters/a/api HTTP/1.1\r\n" + HEADS + b"\r\n")
            (got,) = read(wire.take())
            assert got.status == 503
            assert "gent of cluster a" in got.headers["warning"]
        wire = g.connect()
        wire.send(b"GET /clusters/a/api HTTP/1.1\r\n" + HEADS + b"\r\n")
        exchange = g.clusters.opened[-1]
        assert isinstance(exchange, FakeExchange)
        exchange.sink.on_reset(ExchangeReset(Hop.APISERVER, Reason.TIMEOUT, "silence"))
        await settle()
        (got,) = read(wire.take())
        assert (got.status, got.hop) == (504, "apiserver")
        assert "did not answer in time" in got.headers["warning"]
