"""Which agent takes the next exchange, and what is said where none does."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from stub.errors import AgentSilent, Draining, NoAgent, SessionOverloaded
from stub.session import AgentInfo, Session
from stub.sessions import Sessions
from stub.standing import Standing
from tests.support.agentauthority import Book
from tests.support.attached import Asked, eventually, get
from tunnel.calls import Calls
from tunnel.errors import ExchangeReset, Hop, ProtocolError, Reason
from tunnel.limits import KIB, LinkLimits, Timing
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
    return Sessions(clock=Time(), interval=1.0, on_change=changes.append)


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
