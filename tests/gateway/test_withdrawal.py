"""Streams that their users may not have any more: they end soon, and say why where the protocol has a place for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
from websockets.frames import Close, Opcode

from gateway import status
from gateway.connection import ClientConnection
from gateway.failures import Refused
from gateway.membership import conditions
from gateway.recording.streamtap import TapFailed
from gateway.withdrawal import Withdrawal
from tests.gateway.answers import read
from tests.gateway.execstreams import fragment, message
from tests.gateway.gate import HEADS, Gate, gate, settle
from tests.gateway.test_withdrawal_frames import judged
from tests.gateway.wire import FakeExchange, Wire
from tunnel.errors import Hop, Reason
from tunnel.ports import ResponseBlock
from tunnel.websocket import CLOSE, CONT, encode

REVOKED = Refused(status.UNAUTHENTICATED, "the certificate has been revoked")
TEXT = "Kulvert's gateway does not know you: the certificate has been revoked; check the credentials in your kubeconfig"
V5 = b"v5.channel.k8s.io"


class Session:
    """One client's stream, and what came of it."""

    def __init__(self, g: Gate, path: bytes = b"exec?command=sh", upgrade: bytes = b"websocket", chosen: bytes = V5):
        self.gate = g
        self.wire: Wire = g.connect()
        target = b"/clusters/a/api/v1/namespaces/n/pods/p/" + path
        more = b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n" if upgrade else b""
        self.wire.send(b"GET " + target + b" HTTP/1.1\r\n" + HEADS + more + b"\r\n")
        self.exchange: FakeExchange = g.clusters.last
        if upgrade:
            self.exchange.switch(upgrade, [(b"sec-websocket-protocol", chosen)])
            with g.door.batch:
                pass
            self.wire.take()

    def cluster(self, data: bytes) -> None:
        with self.gate.door.batch:
            self.exchange.sink.on_data(data)

    def withdraw(self, refused: Refused = REVOKED) -> None:
        connection = self.wire.protocol
        assert isinstance(connection, ClientConnection)
        with self.gate.door.batch:
            if connection.passage is not None:
                connection.passage.withdraw(refused)

    @property
    def audited(self) -> dict[str, Any]:
        (event,) = [event for event in self.gate.audit.events if event["stage"] == "ResponseComplete"]
        return dict(event)

    def ended(self) -> str:
        """The reason that the audit has; the exchange is over, and nothing of the connection is left."""
        assert self.exchange.cancelled == (Hop.GATEWAY, Reason.CANCELLED, REVOKED.detail)
        if not self.wire.closed:
            self.gate.pass_time(3.0)
        assert self.wire.closed
        self.wire.lose()
        assert not self.gate.door.connections
        assert self.gate.traffic.in_flight == self.gate.traffic.long_running == 0
        return str(self.audited["annotations"]["kulvert.dev/reason"])


@pytest_asyncio.fixture
async def g() -> AsyncIterator[Gate]:
    async with gate() as g:
        yield g


async def test_exec_gets_the_status_and_a_close_and_time_to_read_them(g: Gate) -> None:
    session = Session(g)
    session.cluster(message(1, b"output"))
    session.withdraw()
    output, told, close = judged(session.wire.take())
    assert output.data == b"\x01output"
    assert told.data[:1] == b"\x03"
    found = orjson.loads(told.data[1:])
    assert (found["kind"], found["status"], found["code"]) == ("Status", "Failure", 401)
    assert (found["reason"], found["message"]) == ("Unauthorized", TEXT)
    assert found["details"]["causes"][0] == {"reason": "Hop", "message": "gateway"}
    assert found["details"]["causes"][1]["message"] == session.audited["auditID"]
    assert Close.parse(close.data) == Close(1000, "")
    assert not session.wire.closed  # a reset could overtake what was just written
    session.wire.send(b"typed meanwhile")
    assert session.exchange.sent == b""
    assert session.ended() == "the certificate has been revoked"


async def test_a_client_that_answers_the_close_is_gone_at_once(g: Gate) -> None:
    session = Session(g)
    session.withdraw()
    session.wire.send(encode(CLOSE, b"\x03\xe8", masked=True))
    session.wire.eof()
    assert not g.door.connections


async def test_a_client_that_goes_on_sending_is_cut(g: Gate) -> None:
    session = Session(g)
    session.withdraw()
    for _ in range(40):
        session.wire.send(bytes(65_536))
    assert session.wire.closed
    session.ended()


async def test_port_forward_gets_a_close_that_says_why(g: Gate) -> None:
    session = Session(g, b"portforward?ports=80", chosen=b"SPDY/3.1+portforward.k8s.io")
    session.cluster(message(1, b"spdy"))
    session.withdraw()
    *_, close = judged(session.wire.take())
    assert Close.parse(close.data) == Close(1008, TEXT)
    session.ended()


@pytest.mark.parametrize(
    ("path", "upgrade"), [(b"exec?command=sh", b"SPDY/3.1"), (b"proxy/chat", b"websocket")], ids=["spdy", "an app's"]
)
async def test_what_has_no_place_for_a_word_is_cut(g: Gate, path: bytes, upgrade: bytes) -> None:
    session = Session(g, path, upgrade)
    session.cluster(message(1, b"looks like a frame"))
    session.withdraw()
    assert session.wire.take() == message(1, b"looks like a frame")
    assert session.wire.closed
    assert session.ended() == "the certificate has been revoked"


@pytest.mark.parametrize("path", [b"log?follow=true", b"?watch=1"])
async def test_an_answer_that_streams_breaks_off(g: Gate, path: bytes) -> None:
    session = Session(g, path, b"")
    session.exchange.begin(200)
    session.cluster(b'{"type":')
    session.withdraw()
    assert session.wire.take().endswith(b'8\r\n{"type":\r\n')  # and no last chunk: it is no whole answer
    assert session.wire.closed
    assert session.ended() == "the certificate has been revoked"


async def test_an_answer_that_has_not_begun_is_a_refusal(g: Gate) -> None:
    session = Session(g, b"log?follow=true", b"")
    session.withdraw()
    await settle()
    (got,) = read(session.wire.take())
    assert (got.status, orjson.loads(got.body)["message"]) == (401, TEXT)
    assert session.exchange.cancelled is not None
    assert session.audited["annotations"]["kulvert.dev/reason"] == "the certificate has been revoked"


# --- in the middle of a message

WHOLE = message(1, b"x" * 300)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 303])
@pytest.mark.parametrize("size", [1, 100, 1_000])
async def test_a_message_that_has_begun_is_ended_first(g: Gate, at: int, size: int) -> None:
    session = Session(g)
    session.cluster(WHOLE[:at])
    session.withdraw()
    session.withdraw(Refused(status.FORBIDDEN, "the next look"))  # comes a bit later, and changes nothing
    session.wire.send(b"typed meanwhile")
    rest = WHOLE[at:] + message(1, b"never to be seen")
    for begin in range(0, len(rest), size):
        session.cluster(rest[begin : begin + size])
    output, told, close = judged(session.wire.take())
    assert (output.data, told.data[:1], close.opcode) == (b"\x01" + b"x" * 300, b"\x03", Opcode.CLOSE)
    assert session.exchange.sent == b""
    assert session.ended() == "the certificate has been revoked"
    assert session.audited["annotations"]["kulvert.dev/bytes-sent"] == str(len(WHOLE))


async def test_so_are_all_its_fragments(g: Gate) -> None:
    session = Session(g)
    session.cluster(fragment(2, b"\x01be", final=False))
    session.withdraw()
    assert judged(session.wire.take())
    session.cluster(fragment(CONT, b"g", final=False) + encode(9, b"", masked=False))
    session.cluster(fragment(CONT, b"un", final=True) + fragment(2, b"\x01more", final=False))
    begun = fragment(2, b"\x01be", final=False)
    opcodes = [frame.opcode for frame in judged(begun + session.wire.take())]
    assert opcodes == [Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.CONT, Opcode.BINARY, Opcode.CLOSE]
    session.ended()


async def test_it_is_paid_for_so_that_it_can_end(g: Gate) -> None:
    session = Session(g)
    session.cluster(WHOLE[:100])
    session.withdraw()
    session.cluster(WHOLE[100:200])
    assert session.exchange.paid == 200


async def test_a_message_that_does_not_end_is_waited_for_no_longer_than_a_moment(g: Gate) -> None:
    session = Session(g)
    session.cluster(WHOLE[:100])
    session.withdraw()
    g.pass_time(0.5)
    assert session.exchange.cancelled is None
    g.pass_time(0.5)
    assert session.wire.take() == WHOLE[:100]
    assert session.wire.closed
    assert session.ended() == "the certificate has been revoked"


async def test_nor_is_a_client_that_has_gone(g: Gate) -> None:
    session = Session(g)
    session.cluster(WHOLE[:100])
    session.withdraw()
    session.wire.eof()
    assert session.exchange.cancelled is not None
    assert not g.door.connections
    assert session.audited["annotations"]["kulvert.dev/reason"] == "the certificate has been revoked"


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_nor_a_cluster_that_has_gone(g: Gate, how: str) -> None:
    session = Session(g)
    session.cluster(WHOLE[:100])
    session.withdraw()
    if how == "end":
        session.exchange.sink.on_end([])
    else:
        session.exchange.reset(Hop.STUB, Reason.LINK_LOST)
    assert session.wire.closed
    assert session.audited["annotations"]["kulvert.dev/reason"] == "the certificate has been revoked"


async def test_a_client_whose_input_was_held_up_is_read_and_its_end_is_seen(g: Gate) -> None:
    session = Session(g)
    session.cluster(WHOLE[:100])
    session.exchange.room = False
    session.wire.send(b"typed")
    assert not session.wire.reading
    session.withdraw()
    assert session.wire.reading


# --- bytes that are no frames


async def test_bytes_that_make_no_sense_go_on_and_lose_the_farewell(g: Gate) -> None:
    session = Session(g)
    hostile = [bytes([number]) * 3 for number in range(256)]
    for piece in hostile:
        session.cluster(piece)
    session.withdraw()
    assert session.wire.take() == b"".join(hostile)
    assert session.wire.closed
    session.ended()


async def test_nothing_is_said_behind_the_clusters_own_close(g: Gate) -> None:
    session = Session(g)
    session.cluster(encode(CLOSE, b"\x03\xe8", masked=False))
    session.withdraw()
    assert [frame.opcode for frame in judged(session.wire.take())] == [Opcode.CLOSE]
    session.ended()


# --- with a recording


class Tap:
    """Writes down what it sees; from some byte on it cannot."""

    name = "a.cast"

    def __init__(self) -> None:
        self.shown = b""
        self.broken = self.over = False

    def begin(self, head: ResponseBlock) -> None: ...

    def from_cluster(self, data: bytes) -> None:
        if self.broken:
            raise TapFailed("no space left")
        self.shown += data

    def from_client(self, data: bytes) -> None: ...

    def end(self) -> None:
        self.over = True


@pytest.mark.parametrize("broken", [False, True])
async def test_a_recorded_session_shows_nothing_unseen_to_its_end(g: Gate, broken: bool) -> None:
    tap = Tap()
    g.pipeline._prepare = lambda passage: setattr(passage, "tap", tap)
    session = Session(g)
    session.cluster(WHOLE[:100])
    session.withdraw()
    tap.broken = broken
    session.cluster(WHOLE[100:])
    taken = session.wire.take()
    if broken:
        assert taken == tap.shown == WHOLE[:100]
    else:
        assert tap.shown == WHOLE
        assert len(judged(taken)) == 3
    assert tap.over
    assert session.exchange.cancelled is not None


# --- what is said


def test_the_audits_reason_is_the_detail_unless_that_is_but_a_name() -> None:
    assert Withdrawal.of(REVOKED, "id").reason == "the certificate has been revoked"
    removing = Withdrawal.of(Refused(conditions.REMOVING, "edge"), "id")
    assert removing.reason == removing.answer.message
    assert "cluster edge any more: it is being removed" in removing.reason
    assert Withdrawal.of(Refused(status.CLUSTER_NOT_FOUND, "edge"), "id").reason.startswith(
        "Kulvert's gateway knows no"
    )


# --- as it happens


async def test_a_look_at_live_streams_finds_what_was_revoked(g: Gate) -> None:
    session = Session(g)
    g.tokens.revoked.add("alice")
    g.chain.clear()
    g.pass_time(5.0)
    *_, told, close = judged(session.wire.take())
    assert orjson.loads(told.data[1:])["code"] == 401
    assert Close.parse(close.data) == Close(1000, "")
