"""The table of docs/protocol.md, 5: what each state of each direction takes. What has no entry is a protocol error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.joined_lone import (
    EXEC,
    GET,
    OK,
    POST,
    SWITCH,
    Lone,
    credit,
    data,
    end,
    lone_agent,
    lone_stub,
    request,
    reset,
    reset_ack,
    response,
)
from tunnel.errors import ProtocolError
from tunnel.frames import FLAG_END
from tunnel.ports import ResponseBlock

HINTS = ResponseBlock(103, [], interim=True)
WHOLE = ResponseBlock(200, [], ended=True)
ID = 1


def agent_in(state: str) -> Lone:
    core = lone_agent()
    if state == "closed":
        core.hear(request(ID, GET))
        core.mux.exchanges[ID].send_response(WHOLE)
    elif state != "unknown":
        core.hear(request(ID, {"body": POST, "ended": GET, "hijacked": EXEC}[state]))
        if state == "hijacked":
            core.mux.exchanges[ID].send_response(SWITCH)
    core.written()
    return core


def stub_in(state: str) -> Lone:
    core = lone_stub()
    if state != "unknown":
        core.open(GET if state == "closed" else EXEC if state == "hijacked" else POST)
        heads = {"body": [OK], "ended": [WHOLE], "hijacked": [SWITCH], "closed": [WHOLE]}.get(state, [])
        core.hear(*(response(ID, head) for head in heads))
    return core


REQUEST_FRAMES = {
    "HEAD": request(ID, POST),
    "HEAD END": request(ID, GET),
    "HEAD UPGRADE": request(ID, EXEC),
    "DATA": data(ID),
    "DATA END": data(ID, b"x", FLAG_END),
    "END": end(ID),
}
RESPONSE_FRAMES = {
    "HEAD": response(ID, OK),
    "HEAD END": response(ID, WHOLE),
    "HEAD INTERIM": response(ID, HINTS),
    "HEAD UPGRADE": response(ID, SWITCH),
    "DATA": data(ID),
    "DATA END": data(ID, b"x", FLAG_END),
    "END": end(ID),
}
ANYWHERE = {"RESET": reset(ID), "CREDIT": credit(ID, 100_000), "RESET+ACK": reset_ack(ID), "empty DATA": data(ID, b"")}
STREAM = {"DATA": "BODY", "DATA END": "ENDED", "END": "ENDED"}
REQUEST_TABLE = {
    "unknown": {"HEAD": "BODY", "HEAD END": "ENDED", "HEAD UPGRADE": "BODY"},
    "body": STREAM,
    "hijacked": STREAM | {"DATA": "HIJACKED"},
    "ended": {},
    "closed": dict.fromkeys([*REQUEST_FRAMES, "empty DATA", "RESET+ACK"], "gone"),
}
RESPONSE_TABLE = {
    "unknown": {},
    "wait": {"HEAD": "BODY", "HEAD END": "ENDED", "HEAD INTERIM": "WAIT", "HEAD UPGRADE": "HIJACKED"},
    "body": STREAM,
    "hijacked": STREAM | {"DATA": "HIJACKED"},
    "ended": {},
    "closed": dict.fromkeys([*RESPONSE_FRAMES, "empty DATA", "RESET+ACK"], "gone"),
}


def check(make: Callable[[str], Lone], state: str, raw: bytes, expected: str | None) -> None:
    core = make(state)
    if expected is None:
        with pytest.raises(ProtocolError):
            core.hear(raw)
        return
    core.hear(raw)
    found = core.mux.exchanges.get(ID)
    assert (found.receiving.name if found else "gone") == expected


@pytest.mark.parametrize("frame", [*REQUEST_FRAMES, *ANYWHERE])
@pytest.mark.parametrize("state", REQUEST_TABLE)
def test_the_request_direction_at_the_agent(state: str, frame: str) -> None:
    expected = REQUEST_TABLE[state].get(frame) or legal_anywhere(state, frame)
    check(agent_in, state, (REQUEST_FRAMES | ANYWHERE)[frame], expected)


@pytest.mark.parametrize("frame", [*RESPONSE_FRAMES, *ANYWHERE])
@pytest.mark.parametrize("state", RESPONSE_TABLE)
def test_the_response_direction_at_the_stub(state: str, frame: str) -> None:
    expected = RESPONSE_TABLE[state].get(frame) or legal_anywhere(state, frame)
    if frame == "RESET" and state not in ("unknown", "closed"):
        expected = "gone"
    check(stub_in, state, (RESPONSE_FRAMES | ANYWHERE)[frame], expected)


def legal_anywhere(state: str, frame: str) -> str | None:
    """RESET and CREDIT, in every state of an exchange that was opened."""
    if frame not in ("RESET", "CREDIT") or state == "unknown":
        return None
    return {"closed": "gone", "wait": "WAIT"}.get(state, state.upper())


def test_the_table_is_the_one_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    rows = [line.split("|")[2:9] for line in page.splitlines() if line.startswith(("| request", "| response", "| | "))]
    columns = ("HEAD", "HEAD INTERIM", "HEAD UPGRADE", "DATA", "END")
    tables = iter([REQUEST_TABLE] * 3 + [RESPONSE_TABLE] * 4)
    for row in rows:
        state, *cells = (cell.strip() for cell in row)
        table = next(tables)
        entries = table[{"–": "unknown"}.get(state, state.lower())]
        for column, cell in zip(columns, cells, strict=False):
            assert cell.startswith(entries.get(column) or "error"), (state, column)
    assert len(rows) == 7


def test_seventeen_interim_responses_are_too_many() -> None:
    core = stub_in("wait")
    core.hear(*[response(ID, HINTS)] * 16)
    with pytest.raises(ProtocolError, match="interim"):
        core.hear(response(ID, HINTS))


def test_an_answer_to_a_head_that_was_not_written_yet() -> None:
    core = lone_stub()
    core.mux.shared.paused = True
    core.open()
    with pytest.raises(ProtocolError):
        core.mux.shared.receive(response(ID))


@pytest.mark.parametrize("number", [0, 2, 2**64 - 1])
@pytest.mark.parametrize("make", [data, end, reset, reset_ack, lambda number: credit(number, 1)])
def test_frames_of_ids_that_were_never_opened(make: Callable[[int], bytes], number: int) -> None:
    for core in (agent_in("body"), stub_in("body")):
        with pytest.raises(ProtocolError, match="never opened"):
            core.hear(make(number))


def test_id_0_opens_nothing_and_a_used_id_opens_nothing_again() -> None:
    core = agent_in("closed")
    with pytest.raises(ProtocolError):
        core.hear(request(0))
    assert core.hear(request(ID, POST)) == []
    assert len(core.opened) == 1


def test_ids_rise_by_any_step_and_those_left_out_are_closed() -> None:
    core = agent_in("closed")
    core.hear(request(100))
    assert core.hear(request(50), data(50)) == []
    assert [exchange.id for exchange, _ in core.opened] == [ID, 100]
