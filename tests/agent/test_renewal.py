"""When a certificate is renewed, over which session, and what happens where that fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.health import HealthReport
from agent.identityfile import IdentityFile
from agent.membership import Membership
from agent.renewal import METHOD, Renewal, RenewalTiming
from agent.trust import Trust
from tests.agent.pki import Authority
from tests.support.agentauthority import Book
from tests.support.attached import UID, Answering, Real, Stub, ask, attached, eventually, get, nothing_left
from tunnel.calls import CallFailed, Params

QUICK = RenewalTiming(look=0.01, timeout=0.3, again=0.02, most=0.05)
FINE, BAD = HealthReport(True, "", 3), HealthReport(False, "no etcd", 3)
START = 1_800_000_000.0
BACKDATED = 300.0


class Bed:
    """A renewal whose wall clock, and whose stub, are in the test's hand."""

    def __init__(self, directory: Path, uniform: float = 0.5) -> None:
        self.now = START
        self.calls: list[float] = []
        self.fails: Exception | None = None
        self.answer: dict[str, Any] = {}
        self.book = Book(lifetime=3600.0, wall=lambda: self.now)
        self.file = IdentityFile(directory)
        self.file.save(self.book.identity("alpha", UID))
        trust = Trust(Authority().pem, None)
        wall = lambda: self.now  # noqa: E731 -- an attribute would be bound too early
        self.membership = Membership("alpha", UID, self.file, trust, lambda _tls: None, wall)
        self.renewal = Renewal(self.membership, self._call, lambda: uniform, QUICK, wall)

    async def _call(self, method: str, params: Params, timeout: float) -> Params:
        assert (method, timeout) == (METHOD, QUICK.timeout)
        self.calls.append(self.now)
        if self.fails is not None:
            raise self.fails
        return {"certificate": self.book.sign(params["csr"], "alpha", UID), "trust": ""} | self.answer

    async def run(self, *times: float) -> None:
        """Let the wall clock show these seconds after the start, one after the other."""
        task = asyncio.create_task(self.renewal.run())
        for after in times:
            self.now = START + after
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("uniform", "part"), [(0.0, 2 / 3 - 0.05), (0.5, 2 / 3), (1.0, 2 / 3 + 0.05)])
async def test_it_is_renewed_about_two_thirds_through_its_life(tmp_path: Path, uniform: float, part: float) -> None:
    bed = Bed(tmp_path, uniform)
    due = part * (3600 + BACKDATED) - BACKDATED
    await bed.run(0, due - 5)
    assert not bed.calls
    await bed.run(due + 5)
    assert len(bed.calls) == 1


async def test_each_renewal_has_a_new_key_and_is_kept_before_it_is_used(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    before = bed.membership.identity
    await bed.run(2500)
    after = bed.membership.identity
    assert before is not None
    assert after is not None
    assert after.key.private_numbers() != before.key.private_numbers()
    kept = IdentityFile(tmp_path).load("alpha", UID)
    assert kept is not None
    assert kept.der == after.der
    await bed.run(2500 + 2600)
    assert len(bed.calls) == 2


async def test_what_fails_is_tried_again_until_it_works_and_told_with_the_health(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.fails = CallFailed("cluster", "not now")
    await bed.run(2500, 2500, 2500)
    assert len(bed.calls) >= 3
    told = bed.renewal.told(FINE)
    assert (told.ready, told.latency_ms) == (True, 3)
    assert told.message == "the agent's certificate expires in 18 min, and cannot be renewed: not now"
    assert bed.renewal.told(BAD).message == f"no etcd; {told.message}"
    bed.fails = None
    await bed.run(2600)
    assert bed.renewal.told(FINE) == FINE
    identity = bed.membership.identity
    assert identity is not None
    assert identity.expires == START + 2600 + 3600


async def test_what_has_failed_stays_due(tmp_path: Path) -> None:
    drawn = iter([0.5, 0.0] + [1.0] * 100)  # the back-off's are among them
    bed = Bed(tmp_path)
    bed.renewal._uniform = bed.renewal._backoff._uniform = lambda: next(drawn)
    bed.fails = CallFailed("cluster", "not now")
    await bed.run(2310, 2310, 2310)
    assert len(bed.calls) >= 2


async def test_one_failure_is_no_news_yet(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.renewal._failed(CallFailed("timeout", "no answer"))
    assert bed.renewal.told(FINE) == FINE


WRONG = {
    "for another key": {"certificate": Book().issued("alpha", UID).chain},
    "none": {"certificate": ""},
    "a number": {"certificate": 7},
    "a bundle that is none": {"trust": 7},
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
async def test_an_answer_that_is_no_certificate_changes_nothing(tmp_path: Path, answer: dict[str, Any]) -> None:
    bed = Bed(tmp_path)
    before, bed.answer = bed.membership.identity, answer
    await bed.run(2500)
    assert bed.calls
    assert bed.membership.identity is before
    kept = IdentityFile(tmp_path).load("alpha", UID)
    assert kept is not None
    assert before is not None
    assert kept.der == before.der


async def test_a_certificate_that_cannot_be_kept_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(tmp_path)
    before = bed.membership.identity

    def full(_path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.identityfile.write_private", full)
    with capture_logs() as logs:
        await bed.run(2500)
    assert bed.membership.identity is before
    assert "No space left" in str(logs)
    assert "PRIVATE" not in str(logs)


async def test_without_a_certificate_there_is_nothing_to_renew(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    await bed.run(3600, 7200)
    assert not bed.calls


# --- before a real stub


@dataclass
class Renewed:
    """A real agent, whose wall clock is the stub's."""

    real: Real
    stub: Stub
    renewal: Renewal
    task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Renewed:
        self.task = asyncio.create_task(self.renewal.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def renewed(stub: Stub, real: Real) -> Renewed:
    return Renewed(real, stub, Renewal(real.membership, real.agent.call, lambda: 0.5, QUICK, lambda: stub.book.wall()))


def later(stub: Stub, seconds: float) -> None:
    before = stub.book.wall
    stub.book.wall = lambda: before() + seconds


async def test_no_link_is_dropped_for_a_renewal_and_a_stream_goes_on(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stub.standing.REVIEW", 0.05)
    handler = Answering(body=None)
    async with attached(stub, handler, state=tmp_path / "state") as real, renewed(stub, real):
        stream = ask(stub, head=get(long=True))
        await eventually(lambda: handler.begun)
        (session,) = stub.sessions.all()
        first = session.standing.known.serial
        for count in (1, 2):
            later(stub, stub.book.lifetime * 0.7)
            await eventually(lambda wanted=count: len(stub.book.renewals) == wanted)  # type: ignore[misc]
            await asyncio.sleep(0.15)  # and looked at again: the first certificate is past its end
        assert stub.sessions.all() == [session]
        assert session.standing.known.serial != first
        handler.answer(handler.begun[0][0], b"late")
        await eventually(lambda: stream.over)
        assert (stream.reset, stream.body) == (None, b"late")
        renewed_serial = session.standing.known.serial
        session.mux.close("cut by the test")
        await eventually(lambda: stub.sessions.all() and stub.sessions.all() != [session])
        assert stub.sessions.all()[0].standing.known.serial == renewed_serial
    assert len(stub.book.requests) == 1


async def test_the_stub_refuses_for_a_while_and_the_session_stays(stub: Stub) -> None:
    async with attached(stub) as real, renewed(stub, real):
        (session,) = stub.sessions.all()
        stub.book.fails = "not now"
        with capture_logs() as logs:
            later(stub, stub.book.lifetime * 0.7)
            await eventually(lambda: sum(one["event"] == "certificate not renewed" for one in logs) >= 2)
        stub.book.fails = ""
        await eventually(lambda: stub.book.renewals)
        assert stub.sessions.all() == [session]


async def test_what_is_not_attached_renews_when_it_is(stub: Stub) -> None:
    pins, stub.book.pins = stub.book.pins, {}
    async with Real(stub) as real, renewed(stub, real) as renewing:
        later(stub, stub.book.lifetime * 0.7)
        await eventually(lambda: renewing.renewal._failures >= 3)
        assert "not attached" in renewing.renewal.told(FINE).message
        stub.book.pins = pins
        await eventually(lambda: stub.book.renewals)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 12, 20, 40])
async def test_a_renewal_cancelled_at_any_point_leaves_nothing(stub: Stub, tmp_path: Path, turns: int) -> None:
    async with attached(stub, state=tmp_path / "state") as real:
        later(stub, stub.book.lifetime * 0.7)
        async with nothing_left():
            async with renewed(stub, real):
                for _ in range(turns):
                    await asyncio.sleep(0)
            (session,) = real.agent.sessions
            assert not session.calls._waiting
        assert IdentityFile(tmp_path / "state").load("alpha", UID) is not None


async def test_a_mute_stub_is_not_waited_for(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def mute(_self: object, _params: Params) -> Params:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("stub.standing.Standing.renew", mute)
    async with attached(stub) as real, renewed(stub, real) as renewing:
        later(stub, stub.book.lifetime * 0.7)
        await eventually(lambda: renewing.renewal._failures >= 1)
        (session,) = real.agent.sessions
        await eventually(lambda: len(session.calls._waiting) <= 1)
