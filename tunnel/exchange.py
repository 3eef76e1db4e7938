"""One end of an exchange: what it receives, its RESET, and where it is in a MOVE (docs/protocol.md, 5 to 7).

It is the same at the stub and at the agent, but for who may answer: the multiplexers (`tunnel.mux`) add that. The state
that few exchanges ever leave stands at the class, so that making one costs little.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from tunnel import block as blocks
from tunnel import frames
from tunnel.errors import ExchangeReset, Hop, ProtocolError, Reason
from tunnel.frames import FLAG_ACK, FLAG_END, RESET
from tunnel.held import HeldFrame, HeldFrames
from tunnel.outgoing import Outgoing
from tunnel.silent import SILENT

if TYPE_CHECKING:
    from tunnel.link import Link
    from tunnel.mux import Mux


class Receiving(enum.IntEnum):
    """What a direction may receive next."""

    WAIT = 0
    BODY = 1
    HIJACKED = 2
    ENDED = 3


_STREAMING = (Receiving.BODY, Receiving.HIJACKED)


class TunnelExchange(Outgoing):
    """Implements `tunnel.ports.Exchange` over a session's links."""

    agent = ""
    """At the stub: the name of the agent, for the audit."""
    repeatable = False
    """At the stub: its owner takes it elsewhere where no answer has begun."""
    interims = 0
    upgrading = False
    """Its request asks for an upgrade: our direction stays open until the answer says what it is for."""
    reset = False
    """RESET by either side: what still comes is dropped."""
    reset_sent = False
    reset_received = False
    offered: Link | None = None
    """The own link that was offered for it, until the offer is answered."""
    offer_lost = False
    """An own link went with an offer on it. It is not offered again: a MOVE that comes may be of that one."""
    peer_moved = False
    _reset_acked = False
    _ack_owed: Link | None = None
    _released = True
    _received = 0
    _consumed = 0
    _window_since = 0.0
    _held: HeldFrames | None = None

    def __init__(self, mux: Mux, exchange_id: int, sink: Any, receiving: Receiving) -> None:
        super().__init__(mux, exchange_id, sink)
        self.receive_link = self.link
        self.receiving = receiving
        self.granted = self._window = mux.limits.shared_credit

    @property
    def held(self) -> int:
        """Bytes that stand here: to be sent, or waiting for a MOVE."""
        return self._queued + (self._held.size if self._held else 0)

    def writable(self) -> None:
        """See `tunnel.outgoing`: a sink is called from within the writing of a link, and may do what it likes."""
        if not self.sending_ended:
            try:
                self.sink.on_writable()
            except Exception as error:
                self.mux.bug(self, error)

    def starving(self) -> None:
        """See `tunnel.outgoing`."""
        self.mux.starved(self)

    def begun(self) -> None:
        """See `tunnel.outgoing`."""
        self.mux.head_written(self)

    # --- receiving

    def on_data(self, flags: int, payload: bytes) -> None:
        """A DATA frame."""
        if self.receiving not in _STREAMING:
            raise ProtocolError(f"DATA for an exchange that is {self.receiving.name}")
        if not payload:
            raise ProtocolError("empty DATA")
        received = self._received + len(payload)
        if received > self.granted:
            raise ProtocolError("DATA beyond its credit")
        self._received = received
        self.receive_link.carried += len(payload)
        self.sink.on_data(payload)
        if flags & FLAG_END:
            self.on_end(b"")

    def on_end(self, payload: bytes) -> None:
        """An END frame, or an END flag."""
        if self.receiving not in _STREAMING:
            raise ProtocolError(f"END for an exchange that is {self.receiving.name}")
        trailers = blocks.decode_trailers(payload)
        hijacked, self.receiving = self.receiving is Receiving.HIJACKED, Receiving.ENDED
        if hijacked:
            self.mux.half_closed(self)
        self.sink.on_end(trailers)
        self.ended_receiving(hijacked)

    def ended_receiving(self, hijacked: bool = False) -> None:
        """The peer's direction is complete: with ours, the exchange is. What is left of a request that was answered
        already would wait for ever for credit.
        """
        if self.reset:
            return
        if self._sent_end:
            self.mux.closed(self)
        elif self._queued and self.sending_ended and not hijacked and not self.mux.answers:
            self.cancel(self.mux.hop, Reason.STOPPED, "the answer ended before its request")

    def ended_sending(self) -> None:
        """Our direction is complete: with the peer's, the exchange is."""
        if self.receiving is Receiving.ENDED:
            self.mux.closed(self)

    def consumed(self, count: int) -> None:
        """See `tunnel.ports.Exchange`."""
        self._consumed += count
        if self._consumed + (self._window >> 1) >= self.granted and self.receiving is not Receiving.ENDED:
            self._grant()

    def _grant(self) -> None:
        if self.reset:
            return
        if self.link.own:
            self._widen()
        self.granted = self._consumed + self._window
        self.link.credit(self)

    def _widen(self) -> None:
        """Half a window was consumed within a round trip: the window is what bounds the speed, so double it."""
        now = self.mux.clock()
        if self._window_since and now - self._window_since < self.mux.rtt + 0.001:
            limits = self.mux.limits
            share = max(limits.own_credit, limits.own_credit_sum // max(1, len(self.mux.own_links)))
            self._window = max(self._window, min(2 * self._window, limits.own_credit_max, share))
        self._window_since = now

    # --- RESET

    def cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        """See `tunnel.ports.Exchange`."""
        self.sink = SILENT
        if self.reset or self.mux.exchanges.get(self.id) is not self:
            return
        self._drop()
        if not self.started and not self.mux.answers:
            self.mux.closed(self)
            return
        self.reset = self.reset_sent = True
        self.link.control(RESET, 0, self.id, frames.reset_payload(hop, reason, message))

    def fail(self, error: ExchangeReset) -> None:
        """This end gives the exchange up (its link was lost, it is overdue): both the owner and the peer are told."""
        sink = self.sink
        self.cancel(error.hop, error.reason, error.message)
        self._tell(sink, error)

    def _tell(self, sink: Any, error: ExchangeReset) -> None:
        """The last word to the owner, and nobody else's harm where it fails: then nothing upstream is waited for."""
        self.sink = SILENT
        try:
            sink.on_reset(error)
        except Exception as bug:
            self.mux.on_bug(self, bug)
            self.released()

    def on_reset(self, link: Link, flags: int, payload: bytes) -> bool:
        """A RESET frame, or its acknowledgement. False: that was nothing new."""
        if flags & FLAG_ACK:
            return self._on_reset_ack(payload)
        error = self.mux.reset_told(*frames.parse_reset(payload))
        new = not self.reset_received
        self.reset = self.reset_received = True
        self._ack_owed = link
        self._drop()
        self._tell(self.sink, error)
        self._settle()
        return new

    def _on_reset_ack(self, payload: bytes) -> bool:
        if not self.reset_sent or payload:
            raise ProtocolError("RESET+ACK without a RESET")
        new, self._reset_acked = not self._reset_acked, True
        self._settle()
        return new

    def retell(self) -> None:
        """The own link that carried our RESET is gone, perhaps with it: say it again on the shared one."""
        if not self._reset_acked:
            payload = frames.reset_payload(self.mux.hop, Reason.LINK_LOST, "the exchange's own link was lost")
            self.link.control(RESET, 0, self.id, payload)

    def lose(self, error: ExchangeReset) -> None:
        """The session has ended: there is nobody left to tell but the owner."""
        self.reset = self.reset_sent = self.reset_received = self._reset_acked = True
        self._drop()
        self._tell(self.sink, error)

    def hold_release(self) -> None:
        """Something upstream is held by this exchange: a RESET is acknowledged only after `released`."""
        self._released = False

    def released(self) -> None:
        """See `tunnel.ports.AgentExchange`."""
        self._released = True
        if self.reset:
            self._settle()

    def _settle(self) -> None:
        """Acknowledge on the link that the RESET came on: on another one it could overtake, or be lost unnoticed."""
        if not self._released:
            return
        link, self._ack_owed = self._ack_owed, None
        if link is not None:
            (self.mux.shared if link.closed else link).control(RESET, FLAG_ACK, self.id)
        if not self.reset_sent or self._reset_acked:
            self.mux.closed(self)

    def _drop(self) -> None:
        super()._drop()
        self._held = None
        self.mux.dropped(self)

    # --- MOVE

    def move_sending(self, own: Link) -> None:
        """Send on the own link from now on: MOVE is the last frame on the shared one, behind all that is committed."""
        self.link.forget(self)
        self.link.control(frames.MOVE, 0, self.id)
        self.link = own
        if self.receiving is not Receiving.ENDED:
            self._window = self.mux.limits.own_credit
            self.granted = max(self.granted, self._consumed + self._window)
            own.credit(self)
        self.settle_move()

    def hold_frame(self, frame: HeldFrame) -> None:
        """A frame came on the own link before the peer's MOVE on the shared one: it waits, bounded by credit."""
        if self._held is None:
            self._held = HeldFrames()
        self._held.add(frame)
        if self._received + self._held.size > self.granted:
            raise ProtocolError("DATA beyond its credit")

    def move_receiving(self, own: Link) -> list[HeldFrame]:
        """The peer's MOVE was seen: the frames that waited for it, in their order."""
        self.peer_moved = True
        self.receive_link = own
        held, self._held = self._held, None
        return held.take() if held else []
