"""A stub that was held up for longer than it promised reaches nobody; one that is alive keeps its promise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.joined_lone import EPOCH, request
from tunnel import frames
from tunnel.agentmux import AgentMux
from tunnel.errors import Reason
from tunnel.frames import PONG, RESET, FrameReader, encode
from tunnel.limits import KIB, LinkLimits, Timing
from tunnel.ports import RequestBlock
from tunnel.silent import SILENT
from tunnel.stubmux import NOBODYS, StubMux

SILENCE = 4.0


@dataclass
class Time:
    """In the test's hand."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bed:
    """An agent's core, and what came of it."""

    silence: float = SILENCE
    time: Time = field(default_factory=Time)
    begun: list[RequestBlock] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        def handler(_exchange: Any, head: RequestBlock) -> Any:
            self.begun.append(head)
            return SILENT

        self.mux = AgentMux(epoch=EPOCH, max_exchanges=10, handler=handler, silence=self.silence, **common(self.time))
        self.mux.shared.on_close = self.closed.append

    def hear(self, after: float, data: bytes) -> None:
        """The stub says something, so much later."""
        self.time.now += after
        self.mux.shared.receive(data)

    def said(self) -> list[frames.Frame]:
        """What the agent has committed since."""
        return FrameReader(64 * KIB).feed(b"".join(self.mux.shared.take()))


def common(clock: Time, timing: Timing | None = None) -> dict[str, Any]:
    return {
        "peer_credit": 64 * KIB, "clock": clock, "limits": LinkLimits(), "timing": timing or Timing(),
        "on_message": lambda _message: None, "on_bug": lambda _exchange, _error: None,
    }  # fmt: skip


def refusals(bed: Bed) -> list[Reason]:
    return [frames.parse_reset(one.payload)[1] for one in bed.said() if one.type == RESET and one.payload]


def test_a_head_that_is_the_first_word_after_the_silence_is_refused_and_the_session_ends() -> None:
    bed = Bed()
    bed.hear(1.0, request(1))
    bed.hear(SILENCE + 0.1, request(2))
    assert [len(bed.begun), refusals(bed)] == [1, [Reason.STALE_EPOCH]]
    bed.hear(0.1, request(3))  # it is awake now, and may have checked its Lease before it fell asleep
    assert [len(bed.begun), refusals(bed)] == [1, [Reason.STALE_EPOCH]]
    bed.mux.sweep(bed.time.now)
    assert "was silent for 4 s" in bed.closed[0]


def test_silence_alone_ends_the_session_too() -> None:
    bed = Bed()
    bed.mux.sweep(bed.time.now + SILENCE)
    assert not bed.closed
    bed.mux.sweep(bed.time.now + SILENCE + 0.1)
    assert bed.closed


@pytest.mark.parametrize("word", [encode(PONG, 0, 0, NOBODYS), request(1)], ids=["a beat", "a request"])
def test_whatever_is_heard_in_time_keeps_the_session(word: bytes) -> None:
    bed = Bed()
    bed.hear(SILENCE, word)
    bed.hear(SILENCE, request(2))
    bed.mux.sweep(bed.time.now + SILENCE)
    assert bed.begun[-1:]
    assert not bed.closed
    assert not refusals(bed)


def test_without_a_promise_silence_is_nothing() -> None:
    bed = Bed(silence=0.0)
    bed.hear(29.0, request(1))
    assert len(bed.begun) == 1


def test_a_session_of_an_earlier_holder_takes_no_head_any_more_and_finishes_what_it_has() -> None:
    bed = Bed()
    bed.hear(0.1, request(1))
    bed.mux.fenced = True
    bed.hear(0.1, request(2))
    assert [len(bed.begun), refusals(bed)] == [1, [Reason.STALE_EPOCH]]
    assert 1 in bed.mux.exchanges


def test_a_stub_that_promised_says_something_in_time_and_a_sweep_is_due_for_it() -> None:
    time = Time()
    mux = StubMux(epoch=EPOCH, max_exchanges=10, **common(time, Timing(silence=SILENCE)))
    last, gaps = time.now, []
    while time.now < 140.0:
        time.now += 0.25  # as Sessions sweeps: nothing is under way here
        if time.now < mux.rest_until:
            continue
        mux.sweep(time.now)
        if [one for one in FrameReader(64 * KIB).feed(b"".join(mux.shared.take())) if one.type == PONG]:
            gaps.append(time.now - last)
            last = time.now
        mux.shared.heard = True
    assert max(gaps) < 0.75 * SILENCE
    assert min(gaps[1:]) >= SILENCE / 2  # and no more often than that


def test_one_that_promised_nothing_says_nothing() -> None:
    time = Time()
    mux = StubMux(epoch=EPOCH, max_exchanges=10, **common(time))
    for second in range(9):
        mux.sweep(time.now + second)
    assert not mux.shared.take()
