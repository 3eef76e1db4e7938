"""How much of the server's memory fast readers can take before they stop reading."""

from __future__ import annotations

import math

import pytest

from stub.session import Session
from stub.sessions import Sessions
from tests.stub.test_sessions import Time, make
from tests.support.attached import Asked, get
from tunnel.exchange import TunnelExchange
from tunnel.limits import KIB, MIB, LinkLimits
from tunnel.link import Link

LIMITS = LinkLimits()


def greedy(session: Session, link_id: int) -> int:
    """A reader on an own link that takes all it gets, as fast as can be: its window at the end."""
    link = Link(session.mux, own=True, link_id=link_id, limits=session.mux.limits)
    session.mux.own_links[link_id] = link
    exchange = session.open(get(long=True), Asked())
    assert isinstance(exchange, TunnelExchange)
    exchange.move_sending(link)
    for _ in range(10):
        exchange.consumed(exchange.granted - exchange._consumed)
    return exchange.granted - exchange._consumed


@pytest.mark.parametrize("readers", [1, 16, 200, 1000])
def test_windows_grow_less_the_more_there_are(readers: int) -> None:
    sessions = Sessions(clock=Time(), interval=1.0)
    session = make(sessions, "a", exchanges=readers)
    windows = [greedy(session, number) for number in range(1, readers + 1)]
    assert windows[0] == LIMITS.own_credit_max == 4 * MIB
    assert min(windows) >= LIMITS.own_credit == 256 * KIB
    few = LIMITS.own_credit_sum // LIMITS.own_credit_max
    bound = LIMITS.own_credit_sum * (1 + math.log(max(1.0, readers / few))) + readers * LIMITS.own_credit
    assert sum(windows) <= bound
    if readers == 200:
        assert sum(windows) < 300 * MIB  # 800 MiB without the share
