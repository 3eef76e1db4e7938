"""One core alone, spoken to in frames: what a test says and hears reads as a transcript."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunnel import frames
from tunnel.agentmux import AgentMux
from tunnel.block import encode_request, encode_response
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.frames import Frame, FrameReader, encode
from tunnel.limits import LinkLimits, Timing
from tunnel.link import Link
from tunnel.mux import Mux
from tunnel.ports import Headers, RequestBlock, ResponseBlock
from tunnel.stubmux import StubMux

EPOCH = 7
NAMES = dict(enumerate(("CONTROL", "HEAD", "DATA", "END", "RESET", "ACK", "CREDIT", "MOVE", "PING", "PONG"), 1))
GET = RequestBlock(b"GET", b"/", [])
POST = RequestBlock(b"POST", b"/", [], ended=False)
EXEC = RequestBlock(b"POST", b"/exec", [(b"upgrade", b"spdy/3.1")], ended=False, upgrade=True)
OK = ResponseBlock(200, [])
SWITCH = ResponseBlock(101, [(b"upgrade", b"spdy/3.1")], upgrade=True)


def request(number: int, block: RequestBlock = GET, epoch: int = EPOCH, extra: int = 0) -> bytes:
    """A request's HEAD."""
    flags, payload = encode_request(block, epoch)
    return encode(frames.HEAD, flags | extra, number, payload)


def response(number: int, block: ResponseBlock = OK) -> bytes:
    """A response's HEAD."""
    flags, payload = encode_response(block)
    return encode(frames.HEAD, flags, number, payload)


def data(number: int, payload: bytes = b"x", flags: int = 0) -> bytes:
    """DATA."""
    return encode(frames.DATA, flags, number, payload)


def end(number: int, payload: bytes = b"") -> bytes:
    """END."""
    return encode(frames.END, 0, number, payload)


def reset(number: int, reason: Reason = Reason.CANCELLED) -> bytes:
    """RESET."""
    return encode(frames.RESET, 0, number, frames.reset_payload(Hop.CLIENT, reason, "no more"))


def reset_ack(number: int) -> bytes:
    """RESET+ACK."""
    return encode(frames.RESET, frames.FLAG_ACK, number)


def credit(number: int, offset: int) -> bytes:
    """CREDIT."""
    return encode(frames.CREDIT, 0, number, frames.OFFSET.pack(offset))


def move(number: int, flags: int = 0) -> bytes:
    """MOVE."""
    return encode(frames.MOVE, flags, number)


def ping(payload: bytes = b"12345678") -> bytes:
    """PING."""
    return encode(frames.PING, 0, 0, payload)


def told(frame: Frame, answers: bool) -> str:
    """A frame in words; `answers` tells whose it is."""
    kind, flags, exchange, payload = frame
    words = [NAMES.get(kind, hex(kind))]
    if kind == frames.HEAD:
        words += _head(flags, exchange, payload, answers)
    elif kind == frames.DATA:
        words += [str(exchange), str(len(payload))] + ["END"] * (flags & 1)
    elif kind == frames.RESET and flags & 1:
        words = ["RESET+ACK", str(exchange)]
    elif kind == frames.RESET:
        hop, reason, _ = frames.parse_reset(payload)
        words += [str(exchange), hop.name, reason.name]
    elif kind == frames.CREDIT:
        words += [str(exchange), str(frames.parse_offset(payload))]
    elif kind == frames.MOVE:
        words = [{0: "MOVE", 1: "OFFER", 2: "CONFIRM", 4: "DECLINE"}[flags], str(exchange)]
    elif kind not in (frames.PING, frames.PONG, frames.CONTROL):
        words.append(str(exchange))
    return " ".join(words)


def _head(flags: int, exchange: int, payload: bytes, answers: bool) -> list[str]:
    what = str(int.from_bytes(payload[:2], "big")) if answers else payload[9:].partition(b" ")[0].decode()
    if flags & frames.FLAG_MORE or not 2 < len(what) < 5:
        what = "…"
    return [str(exchange), what] + ["END"] * (flags & 1)


class Recorder:
    """A sink that writes down what it is told. `on_event` may do something about it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.on_event: Callable[[str], None] = lambda _event: None

    def _add(self, event: str) -> None:
        self.events.append(event)
        self.on_event(event)

    def on_response(self, head: ResponseBlock) -> None:
        self._add(f"{head.status}{' ended' if head.ended else ''}")

    def on_data(self, data: bytes) -> None:
        self._add(f"data {len(data)}")

    def on_end(self, trailers: Headers) -> None:
        self._add(f"end {trailers}" if trailers else "end")

    def on_reset(self, error: ExchangeReset) -> None:
        self._add(f"reset {error.hop.name} {error.reason.name}")

    def on_writable(self) -> None:
        self._add("writable")


class Lone:
    """A core and its links. `hear` feeds it frames and gives what it writes, link by link."""

    def __init__(self, mux: type[Mux], *, limits: LinkLimits | None = None, timing: Timing | None = None) -> None:
        self.now = 100.0
        self.messages: list[dict[str, Any]] = []
        self.bugs: list[BaseException] = []
        self.closed: dict[int, str] = {}
        self.opened: list[tuple[Any, RequestBlock]] = []
        self.sinks: dict[int, Recorder] = {}
        self.wanted = 0
        common: dict[str, Any] = {
            "peer_credit": 65_536,
            "clock": lambda: self.now,
            "limits": limits or LinkLimits(),
            "timing": timing or Timing(),
            "on_message": self.messages.append,
            "on_bug": lambda _exchange, error: self.bugs.append(error),
            "epoch": EPOCH,
            "max_exchanges": 100,
        }
        if mux is AgentMux:
            common |= {"handler": self._handle, "on_links_wanted": self._want}
        self.mux: Any = mux(**common)
        self._readers: dict[Link, FrameReader] = {}
        self._join(self.mux.shared)

    def _want(self) -> None:
        self.wanted += 1

    def _handle(self, exchange: Any, head: RequestBlock) -> Recorder:
        self.opened.append((exchange, head))
        sink = self.sinks[exchange.id] = Recorder()
        return sink

    def _join(self, link: Link) -> None:
        self._readers[link] = FrameReader(1 << 20)
        link.on_close = lambda reason: self._closed(link, reason)

    def _closed(self, link: Link, reason: str) -> None:
        self.closed[link.id] = reason
        self.mux.detach(link, reason)

    def own(self, number: int = 1) -> Link:
        """An own link, attached."""
        link = Link(self.mux, own=True, link_id=number, limits=self.mux.limits)
        self._join(link)
        self.mux.attach(link)
        return link

    def open(self, block: RequestBlock = GET) -> tuple[Any, Recorder]:
        """The stub opens an exchange; its HEAD is written."""
        sink = Recorder()
        exchange = self.mux.open(block, sink)
        self.written()
        return exchange, sink

    def written(self) -> list[str]:
        """What the core has written since it was asked last."""
        lines = []
        for link, reader in list(self._readers.items()):
            if not link.paused:
                where = f"own {link.id}: " if link.own else ""
                lines += [where + told(frame, self.mux.answers) for frame in reader.feed(b"".join(link.take()))]
        return lines

    def hear(self, *raw: bytes, link: Link | None = None) -> list[str]:
        """Frames of the peer's on a link (the shared one), and the answer. Raises ProtocolError."""
        (link or self.mux.shared).receive(b"".join(raw))
        return self.written()

    def sweep(self, seconds: float = 0.0) -> list[str]:
        """Time passes, and is swept."""
        self.now += seconds
        self.mux.sweep(self.now)
        return self.written()


def lone_stub(**options: Any) -> Lone:
    """A stub's core."""
    return Lone(StubMux, **options)


def lone_agent(**options: Any) -> Lone:
    """An agent's core."""
    return Lone(AgentMux, **options)
