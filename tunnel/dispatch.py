"""Whom a frame concerns: the receiving half of a session's multiplexer (docs/protocol.md, 2 and 5).

Every frame is either somebody's, or of no effect (counted, since a flood of those ends a link), or a protocol error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunnel import frames
from tunnel.errors import ExchangeReset, Hop, ProtocolError, Reason
from tunnel.exchange import TunnelExchange
from tunnel.fragments import Fragments
from tunnel.frames import ACK, CONTROL, CREDIT, DATA, END, FLAG_ACK, FLAG_MORE, HEAD, MOVE, PING, PONG, RESET
from tunnel.limits import LinkLimits
from tunnel.link import Link
from tunnel.messages import parse_message

_BODY = (DATA, END)
Failure = Callable[[TunnelExchange | None, BaseException], None]


class Dispatch:
    """Finds the exchange of each frame. The multiplexers say what an end does with heads and MOVEs."""

    hop: Hop
    limits: LinkLimits
    clock: Callable[[], float]
    exchanges: dict[int, TunnelExchange]
    highest: int
    on_message: Callable[[dict[str, Any]], None]
    on_bug: Failure

    def handle(self, link: Link, kind: int, flags: int, exchange: int, payload: bytes) -> None:
        """See `tunnel.link.Receiver`: one frame, to whom it concerns."""
        if link.begun is not None and kind != HEAD:
            raise ProtocolError("a frame between the fragments of a HEAD")
        if kind in _BODY:
            found = self.exchanges.get(exchange)
            if found is None:
                self.gone(link, exchange)
            elif found.receive_link is link or self._placed(link, found, kind, flags, payload):
                self._deliver(found, kind, flags, payload)
        elif kind == HEAD:
            if flags & FLAG_MORE or link.begun is not None:
                self._head_fragment(link, flags, exchange, payload)
            else:
                self._head(link, flags, exchange, payload)
        elif kind == CREDIT:
            self._credit(link, exchange, payload)
        elif kind == RESET:
            self._reset(link, flags, exchange, payload)
        else:
            self._other(link, kind, flags, exchange, payload)

    def _other(self, link: Link, kind: int, flags: int, exchange: int, payload: bytes) -> None:
        if kind == MOVE:
            if payload:
                raise ProtocolError("MOVE with a payload")
            if not 0 < exchange <= self.highest:
                raise ProtocolError(f"MOVE of exchange {exchange}, which was never opened")
            self.on_move(link, flags & frames.MOVE_FLAGS, exchange)
            return
        link.useless()
        if kind == PING:
            if len(payload) != frames.OFFSET.size:
                raise ProtocolError("PING with a payload of a wrong size")
            link.pong(payload)
        elif kind == PONG:
            self.on_pong(link, payload)
        elif kind == ACK and not link.own and not payload:
            self.on_ack(exchange)
        elif kind == CONTROL:
            self._control(link, payload)
        elif kind < frames.FIRST_IGNORABLE:
            raise ProtocolError(f"frame type {kind} is unknown, or has no place here")

    def _deliver(self, found: TunnelExchange, kind: int, flags: int, payload: bytes) -> None:
        if found.reset:
            return
        try:
            if kind == DATA:
                found.on_data(flags, payload)
            elif kind == END:
                found.on_end(payload)
            else:
                self.on_head(found, flags, payload)
        except ProtocolError:
            raise
        except Exception as error:
            self.bug(found, error)

    def bug(self, exchange: TunnelExchange, error: BaseException) -> None:
        """Our own code failed on an exchange: it ends, the session goes on, and somebody is told."""
        self.on_bug(exchange, error)
        exchange.fail(ExchangeReset(self.hop, Reason.INTERNAL, f"internal error ({type(error).__name__})"))

    def gone(self, link: Link, exchange: int) -> None:
        """A frame for an exchange that is not open: dropped where it is closed, an error where it never was."""
        if not 0 < exchange <= self.highest:
            raise ProtocolError(f"a frame for exchange {exchange}, which was never opened")
        if link.own:
            raise ProtocolError(f"a frame for exchange {exchange} on an own link that is not its own")
        link.useless()

    def _placed(self, link: Link, found: TunnelExchange, kind: int, flags: int, payload: bytes) -> bool:
        """Whether a frame that came on another link than the last one is to be handled now."""
        if not link.own and found.reset:
            return True
        if found.link is not link or link.exchange is not found:
            raise ProtocolError(f"a frame of exchange {found.id} on the wrong link")
        if not found.reset:
            found.hold_frame((kind, flags, payload))
        return False

    def _head_fragment(self, link: Link, flags: int, exchange: int, payload: bytes) -> None:
        begun, link.begun = link.begun or Fragments(flags, exchange, self.clock()), None
        block = begun.add(flags, exchange, payload, self.limits.head_block)
        if block is None:
            link.begun = begun
        else:
            self._head(link, flags, exchange, block)

    def _head(self, link: Link, flags: int, exchange: int, payload: bytes) -> None:
        found = self.exchanges.get(exchange)
        if found is None:
            self.on_new_head(link, flags, exchange, payload)
        elif found.receive_link is link or self._placed(link, found, HEAD, flags, payload):
            self._deliver(found, HEAD, flags, payload)

    def _credit(self, link: Link, exchange: int, payload: bytes) -> None:
        offset = frames.parse_offset(payload)
        found = self.exchanges.get(exchange)
        if found is None:
            if not 0 < exchange <= self.highest:
                raise ProtocolError(f"CREDIT for exchange {exchange}, which was never opened")
            link.useless()
        elif link.own and link.exchange is not found:
            raise ProtocolError(f"CREDIT for exchange {exchange} on an own link that is not its own")
        elif found.credited(offset):
            self.on_credit(found)
            link.useful()
        else:
            link.useless()

    def _reset(self, link: Link, flags: int, exchange: int, payload: bytes) -> None:
        found = self.exchanges.get(exchange)
        if found is None:
            self._reset_closed(link, flags, exchange)
            return
        if link.own:
            if link.exchange is not found:
                raise ProtocolError(f"RESET for exchange {exchange} on an own link that is not its own")
            link.tainted = True
        if not found.on_reset(link, flags, payload):
            link.useless()

    def _reset_closed(self, link: Link, flags: int, exchange: int) -> None:
        if not 0 < exchange <= self.highest:
            raise ProtocolError(f"RESET for exchange {exchange}, which was never opened")
        link.useless()
        if not flags & FLAG_ACK:
            link.control(RESET, FLAG_ACK, exchange)
            if link.own:
                self.spoilt(link)

    def _control(self, link: Link, payload: bytes) -> None:
        if link.own:
            raise ProtocolError("a control message on an own link")
        message = parse_message(payload, self.limits.control_bytes)
        try:
            self.on_message(message)
        except ProtocolError:
            raise
        except Exception as error:
            self.on_bug(None, error)

    # --- what the ends add

    def on_new_head(self, link: Link, flags: int, exchange: int, payload: bytes) -> None:
        """A HEAD for an id that is not open."""
        raise NotImplementedError

    def on_head(self, exchange: TunnelExchange, flags: int, payload: bytes) -> None:
        """A HEAD for an open exchange."""
        raise NotImplementedError

    def on_move(self, link: Link, flags: int, exchange: int) -> None:
        """A MOVE of an exchange that is or was open."""
        raise NotImplementedError

    def on_ack(self, exchange: int) -> None:
        """An ACK; only the stub expects one."""
        raise ProtocolError("ACK from a stub")

    def on_credit(self, exchange: TunnelExchange) -> None:
        """The peer gave an exchange more credit."""

    def reset_told(self, hop: Hop, reason: Reason, message: str) -> ExchangeReset:
        """What a RESET of the peer's says, as far as it is believed."""
        return ExchangeReset(hop, reason, message)

    def spoilt(self, link: Link) -> None:
        """An own link carried a RESET that nobody needed any more."""

    def on_pong(self, link: Link, payload: bytes) -> None:
        """A PONG."""
        raise NotImplementedError
