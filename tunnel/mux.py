"""A session's multiplexer, sans-IO: exchanges over one shared link and any number of own links (docs/protocol.md).

What both ends do alike is here; `tunnel.stubmux` and `tunnel.agentmux` add who opens exchanges, and who offers and
confirms a MOVE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunnel.dispatch import Dispatch, Failure
from tunnel.errors import ExchangeReset, Reason
from tunnel.exchange import TunnelExchange
from tunnel.frames import PING
from tunnel.limits import LinkLimits, Timing
from tunnel.link import Link
from tunnel.liveness import Liveness, Verdict


class Mux(Dispatch):
    """One end of a session. Subclasses set `hop` and `answers`, and handle HEAD and MOVE."""

    answers = False
    """Whether this end answers exchanges (the agent), or opens them (the stub)."""

    def __init__(
        self,
        *,
        peer_credit: int,
        clock: Callable[[], float],
        limits: LinkLimits,
        timing: Timing,
        on_message: Callable[[dict[str, Any]], None],
        on_bug: Failure,
    ) -> None:
        self.peer_credit = peer_credit
        self.clock = clock
        self.limits = limits
        self.timing = timing
        self.on_message = on_message
        self.on_bug = on_bug
        self.shared = Link(self, own=False, limits=limits)
        self.own_links: dict[int, Link] = {}
        self.exchanges: dict[int, TunnelExchange] = {}
        self.highest = 0
        self.rtt = 0.0
        self.closed_reason: str | None = None
        self.rest_until = 0.0
        """Until then nothing has to be looked at, unless an exchange is under way."""
        self._liveness = {self.shared: Liveness(timing, clock())}
        self._flushing: dict[TunnelExchange, float] = {}

    # --- MOVE, the half that is alike

    def peer_moved(self, exchange: TunnelExchange, own: Link) -> None:
        """The peer's MOVE was seen, and the own link is known: what waited is handled now."""
        for kind, flags, payload in exchange.move_receiving(own):
            self._deliver(exchange, kind, flags, payload)

    # --- what the ends do differently

    def answered(self) -> None:
        """The peer answered the shared link's last PING."""

    def ended(self) -> None:
        """The session has ended: whatever was kept of its links and exchanges is let go of."""
        self._flushing.clear()
        self._liveness.clear()

    def starved(self, exchange: TunnelExchange) -> None:
        """An exchange has more to send than its credit: the agent offers it a link of its own."""

    def head_written(self, exchange: TunnelExchange) -> None:
        """An exchange's first head was committed."""

    def dropped(self, exchange: TunnelExchange) -> None:
        """An exchange was RESET by either side: it sends nothing more."""

    def link_free(self, link: Link) -> None:
        """An own link's exchange has ended."""

    # --- ends

    def half_closed(self, exchange: TunnelExchange) -> None:
        """The peer of a hijacked exchange has ended its direction: ours has to follow soon."""
        if self.closed_reason is not None:
            return
        self._flushing[exchange] = self.clock() + self.timing.flush

    def closed(self, exchange: TunnelExchange) -> None:
        """An exchange is closed: its id and its links are free."""
        if self.exchanges.pop(exchange.id, None) is None:
            return
        exchange.link.forget(exchange)
        if self._flushing:
            self._flushing.pop(exchange, None)
        own = exchange.link if exchange.link.own else exchange.receive_link
        if own.own and own.exchange is exchange and exchange.offered is not own:
            own.exchange = None
            self.link_free(own)

    def attach(self, link: Link) -> None:
        """A further link belongs to the session from now on, or ends with it."""
        if self.closed_reason is not None:
            link.close(self.closed_reason)
            return
        self.own_links[link.id] = link
        self._liveness[link] = Liveness(self.timing, self.clock())

    def detach(self, link: Link, reason: str) -> None:
        """A link has ended: the shared one takes the session with it, an own one its exchange."""
        self._liveness.pop(link, None)
        if link is self.shared:
            self._end(reason, Link.close)
            return
        if self.own_links.get(link.id) is link:
            del self.own_links[link.id]
        exchange, link.exchange = link.exchange, None
        if exchange is not None and self.exchanges.get(exchange.id) is exchange:
            self._orphan(exchange, link, reason)

    def _orphan(self, exchange: TunnelExchange, link: Link, reason: str) -> None:
        exchange.offer_lost |= exchange.offered is link
        exchange.offered = None
        told_there = exchange.link is link
        if not told_there and exchange.receive_link is not link:
            exchange.settle_move()
            return
        exchange.link = exchange.receive_link = self.shared
        if exchange.reset_sent and told_there:
            exchange.retell()
        elif not exchange.reset:
            exchange.fail(ExchangeReset(self.hop, Reason.LINK_LOST, f"the exchange's own link was lost: {reason}"))

    def close(self, reason: str) -> None:
        """End the session: every exchange is told, every link closed. Harmless when it has ended already."""
        self._end(reason, Link.finish)

    def _end(self, reason: str, end_link: Callable[[Link, str], None]) -> None:
        if self.closed_reason is not None:
            return
        self.closed_reason = reason
        lost = ExchangeReset(self.hop, Reason.LINK_LOST, f"the session was lost: {reason}")
        exchanges, self.exchanges = list(self.exchanges.values()), {}
        for exchange in exchanges:
            exchange.lose(lost)
        for link in [self.shared, *self.own_links.values()]:
            end_link(link, reason)
        self.ended()

    # --- time

    def sweep(self, now: float) -> None:
        """What time alone brings: PINGs, dead peers, what is overdue. Called every `timing.sweep` seconds or so while
        exchanges are under way, and otherwise from `rest_until` on.
        """
        if self.closed_reason is not None:
            return
        self.rest_until = now + self.timing.rest
        busy = bool(self.exchanges)
        for link, liveness in list(self._liveness.items()):
            if link.closed:
                continue
            verdict = liveness.sweep(link.heard, now, measured=busy and link is self.shared)
            link.heard = False
            link.useful()
            if verdict is Verdict.PING:
                link.control(PING, 0, 0, liveness.ping(now))
            elif verdict is Verdict.DEAD:
                link.close(f"nothing was heard for {self.timing.dead_after:.0f} s")
            if link.paused or link.begun is not None:
                self._sweep_stuck(link, now)
        for exchange, deadline in list(self._flushing.items()):
            if now >= deadline:
                del self._flushing[exchange]
                exchange.fail(ExchangeReset(self.hop, Reason.TIMEOUT, "the last bytes were not flushed in time"))

    def _sweep_stuck(self, link: Link, now: float) -> None:
        if link.paused and link.paused_since is None:
            link.paused_since = now
        if link.paused_since is not None and now - link.paused_since >= self.timing.progress:
            link.close(f"nothing could be written for {self.timing.progress:.0f} s")
        if link.begun is not None and now - link.begun.since > self.timing.hello:
            link.close("a HEAD was not completed in time")

    def ping(self) -> None:
        """Measure the session's round trip now."""
        if self.closed_reason is not None:
            return
        self.shared.control(PING, 0, 0, self._liveness[self.shared].ping(self.clock()))

    def on_pong(self, link: Link, payload: bytes) -> None:
        liveness = self._liveness.get(link)
        if liveness and liveness.pong(payload, self.clock()) and link is self.shared:
            self.rtt = liveness.rtt
            self.answered()
