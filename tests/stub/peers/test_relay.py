"""What the holder answers where it opens nothing: one exchange ends, in words, and no other is touched."""

from __future__ import annotations

import pytest

from stub.errors import NoAgent
from stub.peers.relay import relayed
from tunnel.errors import ExchangeReset, HeadError, Hop, Reason, TunnelError
from tunnel.ports import Exchange, RequestBlock, ResponseBlock, ResponseSink
from tunnel.silent import SILENT

NAMED = RequestBlock(b"GET", b"/", [(b"kulvert-cluster", b"alpha")])


class Asked:
    """An `AgentExchange`; it notes what it is told."""

    agent = ""

    def __init__(self) -> None:
        self.told: list[object] = []

    def send_response(self, head: ResponseBlock) -> None:
        self.told.append(head)

    def send_data(self, data: bytes) -> bool:
        self.told.append(data)
        return True

    def send_end(self, trailers: bytes = b"") -> None:
        self.told.append(trailers)

    def consumed(self, count: int) -> None:
        self.told.append(count)

    def cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        self.told.append((hop, reason, message))

    def released(self) -> None:
        self.told.append("released")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NoAgent("alpha", "nobody"), (Hop.STUB, Reason.UNREACHABLE, "nobody")),
        (ExchangeReset(Hop.STUB, Reason.LINK_LOST, "lost"), (Hop.STUB, Reason.LINK_LOST, "lost")),
        (HeadError("a head"), (Hop.STUB, Reason.REFUSED_HEAD, "a head")),
    ],
    ids=["stub", "lost", "head"],
)
def test_what_is_not_opened_is_reset_in_words(error: TunnelError, told: object) -> None:
    def fails(_cluster: str, _head: RequestBlock, _sink: ResponseSink) -> Exchange:
        raise error

    asked = Asked()
    assert relayed(asked, NAMED, fails) is SILENT
    assert asked.told == [told, "released"]


def test_a_head_that_names_no_cluster_is_reset_and_opens_nothing() -> None:
    opened: list[object] = []

    def notes(_cluster: str, head: RequestBlock, _sink: ResponseSink) -> Exchange:
        opened.append(head)
        raise AssertionError

    for headers in ([], [*NAMED.headers, *NAMED.headers], [*NAMED.headers, (b"a", b"b")]):
        asked = Asked()
        relayed(asked, RequestBlock(b"GET", b"/", headers), notes)
        assert [one[:2] for one in asked.told if isinstance(one, tuple)] == [(Hop.STUB, Reason.INTERNAL)]
    assert not opened


def test_one_that_fails_while_it_is_opened_is_over_once() -> None:
    """A head that is larger than the agent's link takes, for one."""

    class Dead:
        agent = "agent-1"

        def send_data(self, data: bytes) -> bool:
            return True

        def send_end(self, trailers: bytes = b"") -> None: ...
        def consumed(self, count: int) -> None: ...
        def cancel(self, hop: Hop, reason: Reason, message: str) -> None: ...

    def opens(_cluster: str, _head: RequestBlock, sink: ResponseSink) -> Exchange:
        sink.on_reset(ExchangeReset(Hop.STUB, Reason.TOO_LARGE, "too large"))
        return Dead()

    asked = Asked()
    relayed(asked, NAMED, opens)
    assert asked.told == [(Hop.STUB, Reason.TOO_LARGE, "too large"), "released"]
