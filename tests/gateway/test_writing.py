"""A reader that stops holds a bounded amount: what its exchange is owed is not paid."""

from __future__ import annotations

from tests.gateway.gate import gate, settle
from tests.gateway.test_answering import asked


async def test_a_reader_that_stops_is_owed_credit_and_not_paid() -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.begin(200)
        exchange.sink.on_data(b"x" * 100)
        await settle()
        assert exchange.paid == 100
        wire.stall()
        exchange.sink.on_data(b"y" * 50)
        exchange.sink.on_data(b"y" * 50)
        await settle()
        assert exchange.paid == 100
        wire.unstall()
        assert exchange.paid == 200
        assert wire.high == 64 * 1024
