"""The agent's end of a session: it answers exchanges, and offers those that need it an own link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunnel import block as blocks
from tunnel.errors import ExchangeReset, Hop, ProtocolError, Reason
from tunnel.exchange import Receiving, TunnelExchange
from tunnel.frames import ACK, FLAG_CONFIRM, FLAG_DECLINE, FLAG_OFFER, MOVE
from tunnel.known import LineMemory
from tunnel.limits import MIB
from tunnel.link import Link
from tunnel.mux import Mux
from tunnel.ports import AgentExchange, RequestBlock, RequestSink, ResponseBlock
from tunnel.silent import SILENT

Handler = Callable[[AgentExchange, RequestBlock], RequestSink]
WORN = MIB
"""An own link that has carried more is not used again: the buffers of its TLS connection never shrink."""


class AnsweringExchange(TunnelExchange):
    """Implements `tunnel.ports.AgentExchange`."""

    __slots__ = ()

    def send_response(self, head: ResponseBlock) -> None:
        """See `tunnel.ports.AgentExchange`. The 101 of an upgrade waits for a MOVE that is under way."""
        if head.upgrade:
            self.receiving = Receiving.HIJACKED
            if self.offered is not None:
                self.hold()
        elif not head.ended and not head.interim and _length(head) > self._limit - self._sent:
            self.mux.starved(self)
        self.send_head(*blocks.encode_response(head))


def _length(head: ResponseBlock) -> int:
    for name, value in head.headers:
        if name == b"content-length" and value.isdigit():
            return int(value[:19])
    return 0


class AgentMux(Mux):
    """See the module. `handler` makes the relay of each request; `on_links_wanted` asks for own links to be dialled."""

    hop = Hop.AGENT
    answers = True
    who = "the agent"
    """Who this end is, in its refusals."""

    def __init__(
        self,
        *,
        epoch: int,
        max_exchanges: int,
        handler: Handler,
        silence: float = 0.0,
        on_links_wanted: Callable[[], None] = lambda: None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.epoch = epoch
        self.silence = silence
        """Seconds that the stub promised never to be silent for: beyond them somebody else may hold the cluster."""
        self.fenced = False
        """No HEAD is taken any more: a later holder of the cluster is known, or there may be one."""
        self.pongs = 0
        """How many of our PINGs were answered: what the stub had sent before has come."""
        self.max_exchanges = max_exchanges
        self.handler = handler
        self.on_links_wanted = on_links_wanted
        self.free: list[Link] = []
        self.waiting: dict[TunnelExchange, None] = {}
        self.draining = False
        self._acknowledged = 0
        self._lines = LineMemory()
        self._last_heard = self.clock()
        self._silent = False
        if silence:
            self.shared.on_heard = self._heard

    def on_new_head(self, link: Link, flags: int, exchange: int, payload: bytes) -> None:
        if exchange <= self.highest or link.own:
            self.gone(link, exchange)
            return
        epoch, head = blocks.decode_request(flags, payload, self._lines)
        self.highest = exchange
        link.useful()
        opened = AnsweringExchange(self, exchange, SILENT, Receiving.ENDED if head.ended else Receiving.BODY)
        self.exchanges[exchange] = opened
        if len(self.exchanges) > self.max_exchanges + self.limits.remembered_resets:
            raise ProtocolError("exchanges beyond all bounds")
        refusal = self._refusal(epoch)
        if refusal:
            opened.cancel(self.hop, *refusal)
            return
        self._begin(opened, head)

    def _begin(self, opened: AnsweringExchange, head: RequestBlock) -> None:
        if head.long or head.upgrade:
            self.starved(opened)
        opened.hold_release()
        try:
            sink = self.handler(opened, head)
        except Exception as error:
            opened.released()
            self.bug(opened, error)
            return
        if not opened.reset:
            opened.sink = sink

    def _refusal(self, epoch: int) -> tuple[Reason, str] | None:
        if epoch != self.epoch or self.fenced:
            return Reason.STALE_EPOCH, "the stub is not the holder of the Lease any more"
        if self.draining:
            return Reason.DRAINING, f"{self.who} is shutting down; the request was not processed"
        if len(self.exchanges) > self.max_exchanges:
            return Reason.OVERLOADED, f"{self.who} has as many exchanges as it takes; the request was not processed"
        return None

    def on_head(self, exchange: TunnelExchange, flags: int, payload: bytes) -> None:
        raise ProtocolError("a second HEAD for an exchange")

    def closed(self, exchange: TunnelExchange) -> None:
        self.waiting.pop(exchange, None)
        super().closed(exchange)

    def dropped(self, exchange: TunnelExchange) -> None:
        self.waiting.pop(exchange, None)

    # --- MOVE

    def starved(self, exchange: TunnelExchange) -> None:
        if self.closed_reason is not None:
            return
        if exchange.link.own or exchange.offered is not None or exchange.offer_lost or exchange in self.waiting:
            return
        if self.free:
            self._offer(exchange, self.free.pop())
        else:
            self.waiting[exchange] = None
        self.on_links_wanted()

    def _offer(self, exchange: TunnelExchange, link: Link) -> None:
        link.exchange = exchange
        exchange.offered = link
        link.control(MOVE, FLAG_OFFER, exchange.id)

    def attach(self, link: Link) -> None:
        super().attach(link)
        if not link.closed:
            self.link_free(link)

    def detach(self, link: Link, reason: str) -> None:
        if link in self.free:
            self.free.remove(link)
        super().detach(link, reason)
        if link.own and self.waiting and self.closed_reason is None:
            self.on_links_wanted()

    def link_free(self, link: Link) -> None:
        ended = self.closed_reason is not None or link.closed
        if ended or link.tainted or link.carried > WORN or self.draining:
            link.finish("the own link has done its work")
            return
        while self.waiting:
            exchange = next(iter(self.waiting))
            del self.waiting[exchange]
            self._offer(exchange, link)
            return
        self.free.append(link)

    def on_move(self, link: Link, flags: int, exchange: int) -> None:
        if flags in (FLAG_CONFIRM, FLAG_DECLINE):
            self._offer_answered(link, exchange, flags == FLAG_CONFIRM)
        elif flags or link.own:
            raise ProtocolError("a MOVE that only an agent may send")
        else:
            self._stub_moved(exchange)

    def _stub_moved(self, exchange: int) -> None:
        found = self.exchanges.get(exchange)
        if found is None:
            self.shared.useless()
        elif not found.reset:
            if found.peer_moved:
                raise ProtocolError("MOVE twice")
            own = found.link if found.link.own else found.offered
            if own is not None:
                self.peer_moved(found, own)
            elif found.offer_lost:
                message = "the exchange's own link was lost while it moved"
                found.fail(ExchangeReset(self.hop, Reason.LINK_LOST, message))
            else:
                raise ProtocolError("MOVE of an exchange that was not offered")

    def _offer_answered(self, link: Link, exchange: int, confirmed: bool) -> None:
        found = link.exchange
        if not link.own or found is None or found.id != exchange or found.offered is not link:
            raise ProtocolError("an answer to a MOVE that was not offered")
        found.offered = None
        live = self.exchanges.get(exchange) is found and not found.reset
        if confirmed and live:
            found.move_sending(link)
            return
        link.exchange = None
        if confirmed and found.reset:
            link.tainted = True
        if live:
            self._stays(found)
        self.link_free(link)

    def _stays(self, exchange: TunnelExchange) -> None:
        if exchange.peer_moved:
            raise ProtocolError("MOVE and DECLINE of the same exchange")
        exchange.settle_move()

    def spoilt(self, link: Link) -> None:
        link.tainted = True
        if link in self.free:
            link.finish("a RESET was left on the own link")

    # --- time

    def _heard(self) -> None:
        """A read of the shared link, whose frames are handled next. A holder that was held up for too long says here
        what it had on its tongue then.
        """
        now = self.clock()
        if now - self._last_heard > self.silence:
            self.fenced = self._silent = True
        self._last_heard = now

    def answered(self) -> None:
        self.pongs += 1

    def sweep(self, now: float) -> None:
        if self.silence and (self._silent or now - self._last_heard > self.silence):
            self.shared.close(f"the server was silent for {self.silence:g} s: another may have taken its place")
        super().sweep(now)
        if self.closed_reason is None and self.highest > self._acknowledged:
            self._acknowledged = self.highest
            self.shared.control(ACK, 0, self.highest)

    def ended(self) -> None:
        super().ended()
        self.waiting.clear()
        self.free.clear()

    def drain(self) -> None:
        """Take no new exchanges; free own links are closed."""
        self.draining = True
        for link in list(self.free):
            link.finish("draining")
