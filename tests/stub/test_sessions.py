"""Which agent takes the next exchange, and what is said where none does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from stub.errors import AgentSilent, Draining, NoAgent, SessionOverloaded
from stub.session import AgentInfo, Session
from stub.sessions import Sessions
from stub.standing import Standing
from tests.support.agentauthority import Book
from tests.support.attached import Asked, eventually, get
from tunnel.calls import Calls
from tunnel.drain import Drain
from tunnel.errors import ExchangeReset, Hop, ProtocolError, Reason
from tunnel.frames import CONTROL, FrameReader
from tunnel.limits import KIB, LinkLimits, Timing
from tunnel.messages import parse_message
from tunnel.ports import RequestBlock
from tunnel.stubmux import StubMux

BOOK = Book()


class Time:
    """In the test's hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(
    sessions: Sessions, name: str, cluster: str = "alpha", *, exchanges: int = 10, book: Book | None = None
) -> Session:
    """A session without a connection, added."""
    mux = StubMux(
        epoch=1, max_exchanges=exchanges, peer_credit=64 * KIB, clock=Time(), limits=LinkLimits(),
        timing=Timing(), on_message=lambda message: session.on_message(message), on_bug=lambda _exchange, _error: None,
    )  # fmt: skip
    book = book or BOOK
    calls = Calls(mux.shared.message, {})
    known = book.certificate(book.identity(cluster, "uid").der)
    standing = Standing(book, known, sessions._clock, book.wall)
    info = AgentInfo(cluster, "uid", name, "i", "test", "")
    session: Session = Session(name * 32, b"s", info, mux, calls, standing, 4)
    sessions.add(session)
    return session


def chosen(sessions: Sessions, cluster: str = "alpha") -> str:
    """The agent that takes the next exchange."""
    before = {session.id: session.load for session in sessions.of(cluster)}
    sessions.open(cluster, get(), Asked())
    (found,) = [session for session in sessions.of(cluster) if session.load > before[session.id]]
    return found.info.agent


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def sessions(changes: list[str]) -> Sessions:
    return Sessions(clock=Time(), interval=1.0, on_change=changes.append, uniform=lambda: 0.0)


def test_without_an_agent_nothing_is_opened(sessions: Sessions) -> None:
    make(sessions, "b", "beta")
    with pytest.raises(NoAgent, match="no agent of cluster 'alpha' is connected"):
        sessions.open("alpha", get(), Asked())


def test_the_least_busy_agent_takes_it(sessions: Sessions) -> None:
    make(sessions, "a")
    make(sessions, "b")
    assert [chosen(sessions) for _ in range(4)] == ["a", "b", "a", "b"]


def test_the_work_of_two_agents_stays_even_when_exchanges_end(sessions: Sessions) -> None:
    a, b = make(sessions, "a"), make(sessions, "b")
    for _ in range(6):
        sessions.open("alpha", get(), Asked())
    for exchange in list(a.mux.exchanges.values()):
        a.mux.closed(exchange)
    assert (a.load, b.load) == (0, 3)
    assert [chosen(sessions) for _ in range(3)] == ["a", "a", "a"]


def test_an_agent_whose_api_server_is_not_ready_comes_last(sessions: Sessions) -> None:
    a = make(sessions, "a")
    make(sessions, "b")
    a.on_message({"kind": "health", "ready": False, "message": "no etcd", "latencyMs": 5})
    assert {chosen(sessions) for _ in range(3)} == {"b"}
    state = sessions.state("alpha")
    assert (state.agents, state.ready, state.message) == (2, 1, "no etcd")
    sessions.remove(sessions.of("alpha")[1])
    assert chosen(sessions) == "a"  # better than nobody: its answer says what is wrong
    a.on_message({"kind": "health", "ready": True, "latencyMs": 5, "message": "its certificate cannot be renewed"})
    assert sessions.state("alpha").message == "its certificate cannot be renewed"
    a.on_message({"kind": "health", "ready": True, "latencyMs": 5})
    assert sessions.state("alpha").ready == 1


def test_an_agent_that_is_full_is_passed_over_and_all_full_says_so(sessions: Sessions) -> None:
    make(sessions, "a", exchanges=1)
    make(sessions, "b", exchanges=2)
    assert [chosen(sessions) for _ in range(3)] == ["a", "b", "b"]
    with pytest.raises(SessionOverloaded, match="have all they can take"):
        sessions.open("alpha", get(), Asked())


@pytest.mark.parametrize("others", [0, 1])
def test_an_agent_that_does_not_answer_is_passed_over_and_named(sessions: Sessions, others: int) -> None:
    a = make(sessions, "a")
    a.mux.suspect = True
    for _ in range(others):
        make(sessions, "b")
    if others:
        assert {chosen(sessions) for _ in range(3)} == {"b"}
    else:
        with pytest.raises(AgentSilent, match="is connected, but does not answer"):
            sessions.open("alpha", get(), Asked())
    a.mux.suspect = False
    assert chosen(sessions) == "a"


def test_an_agent_that_drains_is_passed_over(sessions: Sessions) -> None:
    a = make(sessions, "a")
    a.on_message({"kind": "drain", "last": 0})
    with pytest.raises(NoAgent, match="is shutting down"):
        sessions.open("alpha", get(), Asked())
    make(sessions, "b")
    assert chosen(sessions) == "b"


def test_what_an_agent_that_drains_has_not_accepted_may_go_elsewhere(sessions: Sessions) -> None:
    a = make(sessions, "a")
    asked = [Asked() for _ in range(3)]
    for one in asked:
        sessions.open("alpha", get(), one)
    a.on_message({"kind": "drain", "last": 1})
    assert asked[0].reset is None
    for one in asked[1:]:
        assert one.reset is not None
        assert (one.reset.hop, one.reset.reason) == (Hop.AGENT, Reason.DRAINING)


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "drain"},
        {"kind": "drain", "last": -1},
        {"kind": "drain", "last": "1"},
        {"kind": "health", "ready": True, "latencyMs": "5"},
        {"kind": "health", "ready": False, "message": "x" * 1025},
        {"kind": "health", "ready": False, "message": "a\nb"},
    ],
    ids=str,
)
def test_a_message_that_is_malformed_is_a_protocol_error(sessions: Sessions, message: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        make(sessions, "a").on_message(message)


@pytest.mark.parametrize("ready", ["true", 1, None])
def test_ready_is_true_and_nothing_else(sessions: Sessions, ready: object) -> None:
    session = make(sessions, "a")
    session.on_message({"kind": "health", "ready": ready})
    assert not session.health.ready


def test_a_message_of_an_unknown_kind_is_ignored(sessions: Sessions) -> None:
    session = make(sessions, "a")
    session.on_message({"kind": "later", "ready": False})
    assert session.available
    assert session.health.ready


def test_a_server_that_drains_opens_nothing(sessions: Sessions) -> None:
    make(sessions, "a")
    sessions.drain()
    for cluster in ("alpha", "nowhere"):
        with pytest.raises(Draining):
            sessions.open(cluster, get(), Asked())


def test_some_clusters_are_handed_over_and_the_others_go_on(sessions: Sessions) -> None:
    a, other, b = make(sessions, "a"), make(sessions, "c"), make(sessions, "b", "beta")
    under_way = Asked()
    sessions.open("alpha", get(), under_way)
    sessions.drain(["alpha", "nowhere"], "https://stub-2:8444")
    sessions.drain(["alpha"], "https://stub-3:8444")  # said once
    for session, highest in ((a, 1), (other, 0)):
        told = [one for one in FrameReader(64 * KIB).feed(b"".join(session.mux.shared.take())) if one.type == CONTROL]
        assert [Drain.parse(parse_message(one.payload, KIB)) for one in told] == [Drain(highest, "https://stub-2:8444")]
    with pytest.raises(Draining, match="another replica takes"):
        sessions.open("alpha", get(), Asked())
    assert chosen(sessions, "beta") == "b"
    assert not b.draining
    assert sessions.state("alpha").ready == 0
    assert under_way.reset is None
    assert chosen_after_attach(sessions) == "d"  # it came back, before the old one was through


def chosen_after_attach(sessions: Sessions) -> str:
    make(sessions, "d")
    return chosen(sessions)


def test_what_is_handed_over_ends_when_nothing_is_under_way_any_more(sessions: Sessions) -> None:
    idle, busy, stale = make(sessions, "a", "beta"), make(sessions, "b"), make(sessions, "c", "gamma")
    asked = Asked()
    sessions.open("alpha", get(), asked)
    sessions.drain(["alpha", "beta"])
    stale.mux.stale = True
    sweep(sessions)
    assert [idle.mux.closed_reason, busy.mux.closed_reason] == ["handed over", None]
    assert stale.mux.closed_reason == "handed over"
    busy.mux.closed(next(iter(busy.mux.exchanges.values())))
    sweep(sessions)
    assert busy.mux.closed_reason == "handed over"
    assert asked.reset is None


def sweep(sessions: Sessions) -> None:
    """As its timer does."""
    for session in sessions.all():
        session.mux.rest_until = 0.0
        sessions._review(session, sessions._clock())


def test_who_waits_for_an_agent_hears_of_it(sessions: Sessions) -> None:
    heard: list[str] = []
    end = sessions.subscribe(heard.append)
    sessions.subscribe(heard.append)
    sessions.remove(make(sessions, "a"))
    end()
    end()
    make(sessions, "b", "beta")
    assert heard == ["alpha", "alpha", "beta"]


@pytest.mark.parametrize("others", [0, 1])
def test_reads_leave_a_silent_agent_where_there_is_another(sessions: Sessions, others: int) -> None:
    a = make(sessions, "a")
    for _ in range(others):
        make(sessions, "b", exchanges=5)
    asked = Asked()
    a.open(RequestBlock(b"GET", b"/", [], repeatable=True), asked)
    a.mux.suspect, a.mux._late = True, 1
    a.mux._unacknowledged.clear()
    sweep(sessions)
    assert (asked.reset is not None) is bool(others)


def test_a_session_that_has_ended_takes_nothing(sessions: Sessions) -> None:
    a = make(sessions, "a")
    lost = Asked()
    sessions.open("alpha", get(), lost)
    a.mux.close("cut")
    assert lost.reset is not None
    assert lost.reset.reason is Reason.LINK_LOST
    with pytest.raises(NoAgent):
        sessions.open("alpha", get(), Asked())
    with pytest.raises(ExchangeReset):
        a.open(get(), Asked())


def test_who_comes_and_goes_is_told_once(sessions: Sessions, changes: list[str]) -> None:
    a, b = make(sessions, "a"), make(sessions, "b", "beta")
    assert sessions.clusters() == ["alpha", "beta"]
    assert sessions.get(a.id) is a
    sessions.remove(a)
    sessions.remove(a)
    assert changes == ["alpha", "beta", "alpha"]
    assert (sessions.get(a.id), sessions.of("alpha"), sessions.clusters()) == (None, [], ["beta"])
    assert sessions.state("alpha").agents == 0
    assert sessions.all() == [b]


# --- the sweep


def counted(sweep: Callable[[float], None], name: str, seen: list[str]) -> Callable[[float], None]:
    """Tells whose it is, each time."""

    def told(now: float) -> None:
        seen.append(name)
        sweep(now)

    return told


async def test_sessions_at_rest_are_looked_at_rarely_and_busy_ones_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(clock=asyncio.get_running_loop().time, interval=0.01)
    idle, busy = make(sessions, "a", "beta"), make(sessions, "b")
    seen: list[str] = []
    for session in (idle, busy):
        mux = session.mux
        monkeypatch.setattr(mux, "_liveness", {})
        monkeypatch.setattr(mux, "_beat", 0.0)
        monkeypatch.setattr(mux, "sweep", counted(mux.sweep, session.info.agent, seen))
    sessions.open("alpha", get(), Asked())
    sessions.start()
    await eventually(lambda: seen.count("b") > 5)
    sessions.close("the test is over")
    assert seen.count("a") == 1


def broken(*_: object) -> None:
    """A bug of ours."""
    raise KeyError("a bug")


@pytest.mark.parametrize("close", ["fails, too", "works"])
async def test_a_bug_in_one_session_ends_that_one_and_no_others_sweep(
    monkeypatch: pytest.MonkeyPatch, close: str
) -> None:
    sessions = Sessions(clock=Time(), interval=0.01)
    bad, good = make(sessions, "a"), make(sessions, "b")
    swept: list[float] = []
    monkeypatch.setattr(good.mux, "sweep", swept.append)
    monkeypatch.setattr(bad.mux, "sweep", broken)
    if close == "fails, too":
        monkeypatch.setattr(bad.mux, "close", broken)
    with capture_logs() as logs:
        sessions.start()
        await eventually(lambda: len(swept) > 3)
    assert sessions.all() == [good]
    assert [line["event"] for line in logs].count("internal error in a session, which ends") == 1
    assert (bad.mux.closed_reason is None) is (close == "fails, too")
    sessions.close("the test is over")
    await asyncio.sleep(0.03)
    seen = len(swept)
    await asyncio.sleep(0.03)
    assert len(swept) == seen


async def test_after_a_standstill_what_has_come_is_heard_before_anybody_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    sessions = Sessions(clock=lambda: now[0], interval=0.25)
    session = make(sessions, "a")
    swept: list[float] = []
    monkeypatch.setattr(session.mux, "sweep", swept.append)
    for moment in (0.25, 40.0, 40.25):
        now[0] = moment
        session.mux.rest_until = 0.0
        sessions._sweep()
        await asyncio.sleep(0)
    sessions.close("the test is over")
    assert swept == [0.25, 40.25]


async def test_many_sessions_are_swept_in_several_turns_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stub.sessions.SLICE", 2)
    sessions = Sessions(clock=lambda: 0.0, interval=10.0)
    swept: list[str] = []
    for name in "abcde":
        session = make(sessions, name)
        monkeypatch.setattr(session.mux, "sweep", lambda _now, name=name: swept.append(name))
        session.mux.rest_until = -1.0
    sessions._sweep()
    assert swept == ["a", "b"]
    await eventually(lambda: swept == ["a", "b", "c", "d", "e"])
    sessions.close("the test is over")
