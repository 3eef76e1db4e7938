"""The session of a replica that asks another one: the stub's end of the link protocol, whose agent is a replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stub.errors import SessionOverloaded
from stub.ownership import Replica
from stub.peers.errors import PeerUnready, told, unanswered
from stub.peers.heads import take_agent, with_cluster
from stub.peers.hello import PeerWelcome
from stub.peers.limits import EPOCH, PeerLimits
from tunnel.adapter import LinkConnection
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.exchange import TunnelExchange
from tunnel.frames import FLAG_OFFER
from tunnel.link import Link
from tunnel.messages import Message, number, printable
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseBlock, ResponseSink
from tunnel.stubmux import StubMux

CROWD = 2
"""From this many exchanges on, waiting for the end of the loop's turn saves more than it delays."""


class AskingMux(StubMux):
    """A holder may speak for itself, too, and one that does not answer is a lost one: another may hold the cluster."""

    who = "the replica that holds the cluster"
    overdue = (Hop.STUB, Reason.LINK_LOST)

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.on_offer: Callable[[], None] = lambda: None

    def on_move(self, link: Link, flags: int, exchange: int) -> None:
        super().on_move(link, flags, exchange)
        if flags == FLAG_OFFER:
            self.on_offer()  # one that was idle is in use

    def reset_told(self, hop: Hop, reason: Reason, message: str) -> ExchangeReset:
        return told(hop, reason, printable(message))


class AskingSession:
    """Made of a holder's welcome. `on_links_wanted` asks for own links to be dialled; `on_end` is called once."""

    def __init__(
        self,
        replica: Replica,
        welcome: PeerWelcome,
        limits: PeerLimits,
        clock: Callable[[], float],
        on_bug: Callable[[object, BaseException], None],
    ) -> None:
        self.replica = replica.identity
        self.address = replica.peer_address
        self.welcome = welcome
        self.draining = False
        self.leaving = False
        """It takes nothing new, and ends when nothing is left."""
        self.waiting = 0
        """Exchanges that wait for an own link, as the holder has told."""
        self.on_links_wanted: Callable[[], None] = lambda: None
        self.on_end: Callable[[str], None] = lambda _reason: None
        self.mux = AskingMux(
            epoch=EPOCH,
            max_exchanges=min(welcome.exchanges, limits.link.exchanges),
            peer_credit=welcome.credit,
            clock=clock,
            limits=limits.link,
            timing=limits.timing,
            on_message=self.on_message,
            on_bug=on_bug,
        )
        self.mux.on_offer = lambda: self.on_links_wanted()

    # --- links

    def attach_shared(self, connection: LinkConnection) -> Link:
        """The connection that was welcomed."""
        connection.attach(self.mux.shared, self._detached, self._crowded)
        self.mux.ping()
        return self.mux.shared

    def attach_own(self, link_id: int, connection: LinkConnection) -> Link:
        """A further connection becomes an own link."""
        link = Link(self.mux, own=True, link_id=link_id, limits=self.mux.limits)
        connection.attach(link, self._lost_own, _never)
        self.mux.attach(link)
        return link

    def _crowded(self) -> bool:
        return len(self.mux.exchanges) > CROWD

    def _detached(self, link: Link, reason: str) -> None:
        self.mux.detach(link, reason)
        self.on_end(reason)

    def _lost_own(self, link: Link, reason: str) -> None:
        self.mux.detach(link, reason)
        self.on_links_wanted()

    # --- exchanges

    @property
    def ready(self) -> bool:
        """Whether new exchanges may be given to it."""
        mux = self.mux
        return not (self.draining or self.leaving or mux.suspect or mux.closed_reason is not None)

    def leave(self) -> None:
        """Take nothing new, and end when nothing is left."""
        self.leaving = True
        if not self.mux.exchanges:
            self.mux.close("nothing is left to do")

    def sweep(self, now: float) -> None:
        """See `tunnel.mux`."""
        self.mux.sweep(now)
        if self.leaving:
            self.leave()

    def open(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """A new exchange at the holder. Raises StubError, or HeadError for a head that is too long."""
        mux = self.mux
        if not self.ready:
            raise PeerUnready(cluster, "the replica that holds this cluster cannot be asked at present; try again")
        if mux.full:
            raise SessionOverloaded(cluster, "the replica that holds this cluster has all it can take; try again")
        return ask(mux, cluster, head, sink)

    def on_message(self, message: Message) -> None:
        """A control message of the holder's."""
        if message["kind"] == "drain":
            self._drained(number(message, "last"))
        elif message["kind"] == "links":
            self.waiting = number(message, "waiting", 0, 10**6)
            self.on_links_wanted()

    def _drained(self, last: int) -> None:
        """The holder shuts down: what it did not accept may go elsewhere, the rest finishes."""
        self.draining = True
        for exchange in [one for one in self.mux.exchanges.values() if one.id > last]:
            exchange.fail(ExchangeReset(Hop.STUB, Reason.DRAINING, "the replica is shutting down; not processed"))


def ask(mux: StubMux, cluster: str, head: RequestBlock, sink: ResponseSink) -> TunnelExchange:
    """A new exchange of a cluster. Raises ExchangeReset and HeadError as `StubMux.open` and `with_cluster` do."""
    answer = _Answer(sink)
    exchange = answer.exchange = mux.open(with_cluster(head, cluster), answer)
    return exchange


class _Answer:
    """The sink of an exchange until its final head: it takes the agent's name out of it, and the owner takes over."""

    __slots__ = ("exchange", "heard", "sink")

    def __init__(self, sink: ResponseSink) -> None:
        self.sink = sink
        self.heard = False
        self.exchange: TunnelExchange | None = None

    def on_response(self, head: ResponseBlock) -> None:
        self.heard = True
        agent, exchange = take_agent(head), self.exchange
        if exchange is not None:
            exchange.agent = agent or exchange.agent
            if not head.interim and exchange.sink is self:
                exchange.sink = self.sink
        self.sink.on_response(head)

    def on_data(self, data: bytes) -> None:
        self.sink.on_data(data)

    def on_end(self, trailers: Headers) -> None:
        self.sink.on_end(trailers)

    def on_reset(self, error: ExchangeReset) -> None:
        self.sink.on_reset(error if self.heard else unanswered(error))

    def on_writable(self) -> None:
        self.sink.on_writable()


def _never() -> bool:
    return False
