"""The stub's end of a session: it opens exchanges, confirms MOVEs, and notices an agent that does not answer."""

from __future__ import annotations

from collections import deque
from typing import Any

from tunnel import block as blocks
from tunnel.errors import ExchangeReset, Hop, ProtocolError, Reason
from tunnel.exchange import Receiving, TunnelExchange
from tunnel.frames import FLAG_CONFIRM, FLAG_DECLINE, FLAG_OFFER, MOVE, OFFSET, PONG
from tunnel.link import Link
from tunnel.messages import printable
from tunnel.mux import Mux
from tunnel.ports import RequestBlock, ResponseSink

MAX_INTERIM = 16
NOBODYS = OFFSET.pack(0)
"""The payload of a PONG that answers nothing."""
_BEHIND = (Hop.AGENT, Hop.APISERVER)


class StubMux(Mux):
    """See the module. `suspect`: a HEAD was not acknowledged in time, choose another agent until this one is heard.
    `stale`: the agent knows a later holder of its cluster, and takes nothing from this one any more.
    """

    hop = Hop.STUB
    answers = False
    who = "the agent"
    """Who is at the other end, for messages."""
    overdue = (Hop.AGENT, Reason.UNACKNOWLEDGED)
    """How an exchange fails whose head was not acknowledged in time."""

    def __init__(self, *, epoch: int, max_exchanges: int, **common: Any) -> None:
        super().__init__(**common)
        self.epoch = epoch
        self.max_exchanges = max_exchanges
        self.suspect = False
        self.stale = False
        self._late = 0
        self._beat = self.timing.silence / 2
        self._beat_at = self.clock() + self._beat
        self._written = 0
        self._unacknowledged: dict[int, TunnelExchange] = {}
        self._marks: deque[tuple[float, int]] = deque()

    def open(self, head: RequestBlock, sink: ResponseSink) -> TunnelExchange:
        """A new exchange; its HEAD is written with the next write, in its turn. The caller checked `full`.

        Raises ExchangeReset where the session has ended meanwhile.
        """
        if self.closed_reason is not None:
            raise ExchangeReset(self.hop, Reason.LINK_LOST, f"the session was lost: {self.closed_reason}")
        self.highest += 1
        exchange = TunnelExchange(self, self.highest, sink, Receiving.WAIT)
        self.exchanges[exchange.id] = exchange
        exchange.upgrading = head.upgrade
        exchange.repeatable = head.repeatable
        exchange.send_head(*blocks.encode_request(head, self.epoch))
        return exchange

    @property
    def full(self) -> bool:
        """Whether the session has as many exchanges as its agent takes."""
        return len(self.exchanges) >= self.max_exchanges

    def head_written(self, exchange: TunnelExchange) -> None:
        self._written = exchange.id
        self._unacknowledged[exchange.id] = exchange

    def on_new_head(self, link: Link, flags: int, exchange: int, payload: bytes) -> None:
        self.gone(link, exchange)

    def on_head(self, exchange: TunnelExchange, flags: int, payload: bytes) -> None:
        head = blocks.decode_response(flags, payload)
        if exchange.receiving is not Receiving.WAIT or not exchange.started:
            raise ProtocolError(f"HEAD for an exchange that is {exchange.receiving.name}")
        self._heard(exchange)
        if head.interim:
            exchange.interims += 1
            if exchange.interims > MAX_INTERIM:
                raise ProtocolError("too many interim responses")
        elif head.upgrade:
            exchange.receiving = Receiving.HIJACKED
        else:
            exchange.receiving = Receiving.ENDED if head.ended else Receiving.BODY
        exchange.sink.on_response(head)
        if exchange.upgrading and not head.upgrade and not head.interim:
            exchange.send_end()  # refused: nothing of the client's will follow
        if head.ended:
            exchange.ended_receiving()

    def _heard(self, exchange: TunnelExchange) -> None:
        self._unacknowledged.pop(exchange.id, None)
        self.suspect = False
        self.shared.useful()

    def on_ack(self, exchange: int) -> None:
        if exchange > self.highest:
            raise ProtocolError("ACK for an exchange that was never opened")
        self.suspect = False
        for number in list(self._unacknowledged):
            if number > exchange:
                break
            del self._unacknowledged[number]

    def on_credit(self, exchange: TunnelExchange) -> None:
        self._unacknowledged.pop(exchange.id, None)

    def answered(self) -> None:
        self.suspect = False

    def closed(self, exchange: TunnelExchange) -> None:
        self._unacknowledged.pop(exchange.id, None)
        super().closed(exchange)

    def on_move(self, link: Link, flags: int, exchange: int) -> None:
        found = self.exchanges.get(exchange)
        self._unacknowledged.pop(exchange, None)
        if flags == FLAG_OFFER:
            self._offer(link, exchange, found)
        elif flags or link.own:
            raise ProtocolError("a MOVE that only a stub may send")
        elif found is None:
            link.useless()
        elif not found.reset:
            if not found.link.own or found.peer_moved:
                raise ProtocolError("MOVE of an exchange that was not confirmed, or twice")
            self.peer_moved(found, found.link)

    def reset_told(self, hop: Hop, reason: Reason, message: str) -> ExchangeReset:
        """An agent speaks for itself and its API server: its users must not take its words for the gateway's."""
        if reason is Reason.STALE_EPOCH:
            self.stale = True
        return ExchangeReset(hop if hop in _BEHIND else Hop.AGENT, reason, printable(message))

    def _offer(self, link: Link, exchange: int, found: TunnelExchange | None) -> None:
        if not link.own or (found is not None and link.exchange is found):
            raise ProtocolError("MOVE+OFFER on a link that cannot take it")
        if found is None or found.reset or found.link.own or link.exchange is not None:
            link.useless()
            link.control(MOVE, FLAG_DECLINE, exchange)
            return
        link.useful()
        link.exchange = found
        link.control(MOVE, FLAG_CONFIRM, exchange)
        if not link.closed:
            found.move_sending(link)

    def ended(self) -> None:
        super().ended()
        self._unacknowledged.clear()
        self._marks.clear()

    def sweep(self, now: float) -> None:
        super().sweep(now)
        if self.closed_reason is not None:
            return
        if self._beat:
            self._keep_promise(now)
        deadline = self.timing.ack_deadline + 4 * self.rtt
        if self._unacknowledged:
            self._marks.append((now, self._written))
        while self._marks and now - self._marks[0][0] >= deadline:
            self._overdue(self._marks.popleft()[1])

    def _keep_promise(self, now: float) -> None:
        """Say something at least every half of what welcome promised: see `Timing.silence`."""
        self.rest_until = min(self.rest_until, now + self._beat / 4)
        if now >= self._beat_at:
            self._beat_at = now + self._beat
            self.shared.control(PONG, 0, 0, NOBODYS)

    def _overdue(self, mark: int) -> None:
        self._late = mark
        for number, exchange in list(self._unacknowledged.items()):
            if number > mark:
                return
            if self._unacknowledged.pop(number, None) is None:
                continue  # the end of an earlier one has taken it along
            if not self.suspect:
                self._suspect()
            message = f"{self.who} did not acknowledge the request in time; its outcome is unknown"
            exchange.fail(ExchangeReset(*self.overdue, message))

    def _suspect(self) -> None:
        self.suspect = True
        self.ping()
        unsent = ExchangeReset(self.hop, self.overdue[1], f"{self.who} reads nothing; the request was not sent")
        for exchange in [one for one in self.exchanges.values() if not one.started and not one.reset]:
            exchange.fail(unsent)

    def give_up_reads(self) -> None:
        """Another agent is there: it gets what was given to this one before it fell silent, acknowledged or not, where
        that may be asked twice. Nothing else is: this one may yet answer.
        """
        silent = ExchangeReset(*self.overdue, f"{self.who} has fallen silent before it answered")
        for exchange in list(self.exchanges.values()):
            if exchange.id > self._late:
                return
            if exchange.repeatable and exchange.receiving is Receiving.WAIT and not exchange.reset:
                exchange.fail(silent)
