"""An agent that reads nothing: what it was given fails in time, and what may be asked twice goes to another."""

from __future__ import annotations

import pytest

from tests.support.attached import Asked
from tests.support.joined_lone import EPOCH, POST, response
from tests.tunnel.test_silence import Time, common
from tunnel.errors import Hop, Reason
from tunnel.frames import ACK, PONG, RESET, FrameReader, encode, reset_payload
from tunnel.limits import KIB, Timing
from tunnel.ports import RequestBlock
from tunnel.stubmux import StubMux

READ = RequestBlock(b"GET", b"/", [], repeatable=True)
LOG = RequestBlock(b"GET", b"/log", [])
TIMING = Timing()


class Bed:
    """A stub's core before an agent that says what the test says."""

    def __init__(self) -> None:
        self.time = Time()
        self.mux = StubMux(epoch=EPOCH, max_exchanges=100, **common(self.time, TIMING))

    def ask(self, head: RequestBlock) -> Asked:
        asked = Asked()
        self.mux.open(head, asked)
        return asked

    def pass_time(self, seconds: float) -> None:
        """With a sweep each quarter of a second."""
        for _ in range(round(seconds / TIMING.sweep)):
            self.mux.sweep(self.time.now)
            self.time.now += TIMING.sweep
        self.mux.sweep(self.time.now)


@pytest.fixture
def bed() -> Bed:
    return Bed()


def why(asked: Asked) -> tuple[Hop, Reason] | None:
    return (asked.reset.hop, asked.reset.reason) if asked.reset else None


def test_what_is_not_acknowledged_fails_within_a_second_and_a_half(bed: Bed) -> None:
    read = bed.ask(READ)
    bed.pass_time(0.75)
    assert not bed.mux.suspect
    bed.pass_time(0.5)
    assert bed.mux.suspect
    assert why(read) == (Hop.AGENT, Reason.UNACKNOWLEDGED)
    assert read.reset is not None
    assert "its outcome is unknown" in read.reset.message


def test_what_has_not_left_the_stub_fails_with_that_and_says_so(bed: Bed) -> None:
    sent = bed.ask(READ)
    bed.mux.shared.paused = True  # the agent reads nothing: the socket is full
    unsent = bed.ask(POST)
    bed.pass_time(1.25)
    assert why(sent) == (Hop.AGENT, Reason.UNACKNOWLEDGED)
    assert why(unsent) == (Hop.STUB, Reason.UNACKNOWLEDGED)
    assert unsent.reset is not None
    assert "was not sent" in unsent.reset.message
    assert not bed.mux.exchanges or all(one.reset for one in bed.mux.exchanges.values())


def test_reads_it_has_acknowledged_are_given_up_only_where_asked_and_only_unanswered_ones(bed: Bed) -> None:
    acknowledged, post, log, answered = (bed.ask(head) for head in (READ, POST, LOG, READ))
    bed.mux.shared.receive(encode(ACK, 0, 4) + response(4))
    late = bed.ask(READ)
    bed.pass_time(1.25)
    assert why(late) is not None
    young = bed.ask(READ)
    assert [why(one) for one in (acknowledged, post, log, answered, young)] == [None] * 5
    bed.mux.give_up_reads()
    assert why(acknowledged) == (Hop.AGENT, Reason.UNACKNOWLEDGED)
    assert [why(one) for one in (post, log, answered, young)] == [None] * 4


def test_it_is_used_again_when_it_answers_the_ping(bed: Bed) -> None:
    bed.ask(READ)
    bed.pass_time(1.25)
    (ping,) = [one for one in FrameReader(64 * KIB).feed(b"".join(bed.mux.shared.take())) if one.type == 9]
    bed.mux.shared.receive(encode(PONG, 0, 0, ping.payload))
    assert not bed.mux.suspect


def test_an_agent_that_knows_a_later_holder_is_used_no_more(bed: Bed) -> None:
    read = bed.ask(READ)
    assert not bed.mux.stale
    bed.mux.shared.receive(encode(RESET, 0, 1, reset_payload(Hop.AGENT, Reason.STALE_EPOCH, "not the holder")))
    assert why(read) == (Hop.AGENT, Reason.STALE_EPOCH)
    assert bed.mux.stale
