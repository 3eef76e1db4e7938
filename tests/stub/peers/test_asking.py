"""The session of a replica that asks, without a connection."""

from __future__ import annotations

import pytest

from stub.errors import SessionOverloaded
from stub.ownership import Replica
from stub.peers.asking import AskingSession
from stub.peers.errors import NotOpened, PeerUnready
from stub.peers.hello import PeerWelcome
from stub.peers.limits import PeerLimits
from tests.stub.peers.replicas import User
from tests.support.joined_lone import response
from tunnel.errors import ExchangeReset, Hop, ProtocolError, Reason
from tunnel.frames import RESET, encode, reset_payload
from tunnel.limits import KIB
from tunnel.ports import RequestBlock, ResponseBlock

GET = RequestBlock(b"GET", b"/", [])


def session(exchanges: int = 10) -> AskingSession:
    """One that was welcomed."""
    welcome = PeerWelcome(1, "s", "t", 64 * KIB, exchanges, 4, 2)
    return AskingSession(Replica("o", ""), welcome, PeerLimits(), lambda: 0.0, lambda _exchange, _error: None)


def test_what_a_holder_that_drains_has_not_accepted_may_go_elsewhere_at_once() -> None:
    one, users = session(), [User() for _ in range(3)]
    for user in users:
        one.open("alpha", GET, user)
    one.on_message({"kind": "drain", "last": 1})
    assert users[0].reset is None
    for user in users[1:]:
        assert isinstance(user.reset, NotOpened)
        assert (user.reset.hop, user.reset.reason) == (Hop.STUB, Reason.DRAINING)
    with pytest.raises(PeerUnready):
        one.open("alpha", GET, User())


def test_a_session_that_is_full_or_lost_opens_nothing() -> None:
    one, user = session(1), User()
    one.open("alpha", GET, user)
    with pytest.raises(SessionOverloaded):
        one.open("alpha", GET, User())
    one.mux.close("cut")
    assert user.reset is not None
    assert user.reset.reason is Reason.LINK_LOST
    with pytest.raises(PeerUnready):
        one.open("alpha", GET, User())


@pytest.mark.parametrize(
    "message",
    [{"kind": "drain"}, {"kind": "drain", "last": -1}, {"kind": "links"}, {"kind": "links", "waiting": 1e9}],
    ids=str,
)
def test_a_message_that_is_malformed_is_a_protocol_error(message: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        session().on_message(message)


def test_an_unknown_message_means_nothing() -> None:
    one = session()
    one.on_message({"kind": "later"})
    assert one.ready


@pytest.mark.parametrize("hop", list(Hop))
@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("heard", [False, True])
def test_a_holder_is_believed_about_itself_and_what_is_behind_it(hop: Hop, reason: Reason, heard: bool) -> None:
    """And that nothing was opened, as long as nothing was heard of it."""
    one, user = session(), User()
    one.open("alpha", GET, user)
    one.mux.shared.take()
    if heard:
        one.mux.shared.receive(response(1, ResponseBlock(103, [], interim=True)))
    one.mux.shared.receive(encode(RESET, 0, 1, reset_payload(hop, reason, "words\r\nmore")))
    behind = hop in (Hop.AGENT, Hop.APISERVER)
    refusals = (Reason.UNREACHABLE, Reason.UNACKNOWLEDGED, Reason.OVERLOADED, Reason.DRAINING)
    assert type(user.reset) is (ExchangeReset if behind or heard or reason not in refusals else NotOpened)
    assert user.reset is not None
    assert (user.reset.hop, user.reset.reason) == (hop if behind else Hop.STUB, reason)
    assert user.reset.message == "words  more"


def test_a_stream_that_a_holder_ends_was_open() -> None:
    one, user = session(), User()
    one.open("alpha", GET, user)
    one.mux.shared.take()
    one.mux.shared.receive(response(1, ResponseBlock(200, [])))
    one.mux.shared.receive(encode(RESET, 0, 1, reset_payload(Hop.STUB, Reason.DRAINING, "shutting down")))
    assert type(user.reset) is ExchangeReset
