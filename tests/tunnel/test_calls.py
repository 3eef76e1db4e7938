"""Questions over control messages: two ends joined by their payloads."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from tunnel.calls import AT_ONCE, CallFailed, Calls, Method, Params
from tunnel.errors import ProtocolError
from tunnel.messages import encode_message, parse_message


def joined(bugs: list[BaseException] | None = None, **methods: Method) -> tuple[Calls, Calls]:
    """One that asks, and one that has methods; what either sends is heard at once."""
    ends: list[Calls] = []

    def hear(other: int, payload: bytes) -> None:
        ends[other].on_message(parse_message(payload, 65_536))

    ends.append(Calls(partial(hear, 1), {}))
    ends.append(Calls(partial(hear, 0), methods, (bugs if bugs is not None else []).append))
    return ends[0], ends[1]


async def doubled(params: Params) -> Params:
    return {"n": params["n"] * 2}


async def test_a_question_gets_its_answer_also_out_of_order() -> None:
    first = asyncio.Event()

    async def late(_params: Params) -> Params:
        await first.wait()
        return {"late": True}

    asking, _ = joined(doubled=doubled, late=late)
    waiting = asyncio.create_task(asking.call("late", {}, 5))
    assert await asking.call("doubled", {"n": 4}, 5) == {"n": 8}
    first.set()
    assert await waiting == {"late": True}


async def test_what_the_other_side_cannot_is_said_and_not_invented() -> None:
    async def refuses(_params: Params) -> Params:
        raise CallFailed("denied", "not for you")

    asking, _ = joined(refuses=refuses)
    for method, reason in (("refuses", "denied"), ("nothing", "unknown")):
        with pytest.raises(CallFailed) as failed:
            await asking.call(method, {}, 5)
        assert failed.value.reason == reason


async def test_a_bug_is_told_to_its_own_side_alone() -> None:
    async def broken(_params: Params) -> Params:
        raise ValueError("s3cr3t")

    bugs: list[BaseException] = []
    asking, _ = joined(bugs, broken=broken)
    with pytest.raises(CallFailed) as failed:
        await asking.call("broken", {}, 5)
    assert failed.value.reason == "internal"
    assert "s3cr3t" not in str(failed.value)
    assert [type(bug) for bug in bugs] == [ValueError]


async def test_silence_ends_in_a_timeout_and_a_late_answer_is_dropped() -> None:
    sent: list[bytes] = []
    asking = Calls(sent.append, {})
    with pytest.raises(CallFailed) as failed:
        await asking.call("anything", {}, 0.01)
    assert failed.value.reason == "timeout"
    call = parse_message(sent[0], 1000)
    assert asking.on_message(parse_message(encode_message("return", id=call["id"], result={}), 1000))


async def test_the_end_of_the_session_ends_questions_and_answers() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def stays(_params: Params) -> Params:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    asking, answering = joined(stays=stays)
    waiting = asyncio.create_task(asking.call("stays", {}, 5))
    await began.wait()
    answering.close("gone")
    asking.close("gone")
    with pytest.raises(CallFailed) as failed:
        await waiting
    assert failed.value.reason == "closed"
    async with asyncio.timeout(2):
        await ended.wait()


async def test_a_cancelled_question_leaves_nothing_waiting() -> None:
    asking = Calls(lambda _payload: None, {})
    waiting = asyncio.create_task(asking.call("anything", {}, 5))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not asking._waiting


async def test_a_peer_that_asks_without_end_is_refused() -> None:
    async def stays(_params: Params) -> Params:
        await asyncio.Event().wait()
        return {}

    sent: list[dict[str, Any]] = []
    answering = Calls(lambda payload: sent.append(parse_message(payload, 1000)), {"stays": stays})
    for number in range(AT_ONCE + 1):
        answering.on_message({"kind": "call", "id": number, "method": "stays"})
    assert [answer["error"]["reason"] for answer in sent] == ["overloaded"]
    answering.close("end")


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "call", "id": "1", "method": "doubled"},
        {"kind": "call", "id": 1},
        {"kind": "call", "id": 1, "method": "doubled", "params": []},
        {"kind": "return"},
        {"kind": "return", "id": True},
    ],
)
async def test_malformed_messages_are_protocol_errors(message: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        joined(doubled=doubled)[1].on_message(message)


async def test_a_result_that_is_no_object_is_a_protocol_error() -> None:
    asking = Calls(lambda _payload: None, {})
    waiting = asyncio.create_task(asking.call("anything", {}, 5))
    await asyncio.sleep(0)
    with pytest.raises(ProtocolError):
        asking.on_message({"kind": "return", "id": 1, "result": 7})
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_other_messages_are_left_to_others() -> None:
    assert not joined()[0].on_message({"kind": "health"})
