"""Who speaks over two joined cores: clients at the stub and API servers at the agent, whose every byte is checked.

A `Plan` says what an exchange is to do. Both sides send a pattern that depends on the exchange and the offset, so that
a byte lost, doubled, reordered or taken from another exchange is seen at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.support.joined import World
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.limits import KIB
from tunnel.ports import AgentExchange, Exchange, Headers, RequestBlock, ResponseBlock

_LOOP = 65_521
_BLOCK = Random(1).randbytes(_LOOP) * 3


def pattern(key: int, offset: int, size: int) -> bytes:
    """What stands at an offset of a stream; at most 64 KiB of it."""
    start = (key * 7919 + offset) % _LOOP
    return _BLOCK[start : start + size]


@dataclass(slots=True)
class Plan:
    """One exchange. Sizes are bytes, times seconds."""

    up: int = 0
    down: int = 3000
    long: bool = False
    upgrade: bool = False
    refused: bool = False
    """The upgrade is answered with 403."""
    early: bool = False
    """The answer does not wait for the request, and the request's rest is not read."""
    piece: int = 16 * KIB
    think: float = 0.0
    """How long the server takes to answer."""
    reading: float = 0.0
    """How long each piece stays with its reader; negative: for ever."""
    reading_up: float = 0.0
    closing: float = 0.0
    """How long the upstream connection takes to close after a RESET."""
    length: bool = False
    """The response says its content-length."""
    cancel_client: float = -1.0
    cancel_server: float = -1.0
    interims: int = 0


class Party:
    """One end of one exchange: it sends its pattern, and checks the other's."""

    def __init__(self, world: World, plan: Plan, key: int, sending: int, receiving: int, delay: float) -> None:
        self.world, self.plan, self.key = world, plan, key
        self.to_send, self.to_receive, self.delay = sending, receiving, delay
        self.exchange: Exchange | None = None
        self.sent = self.received = self.unread = 0
        self.started = self.sent_end = self.got_end = self.over = self.blocked = False
        self.error: ExchangeReset | None = None
        self.cancelled = False

    def violated(self, what: str) -> None:
        """Something that must never happen did."""
        self.world.violations.append(f"exchange {self.key} at {type(self).__name__}: {what}")

    # --- sending

    def pump(self) -> None:
        """Send until told to stop."""
        self.started = True
        exchange = self.exchange
        if exchange is None:
            return
        while not self.over and self.sent < self.to_send and not self.blocked:
            size = min(self.world.rng.randint(1, self.plan.piece), self.to_send - self.sent)
            data = pattern(self.key, self.sent, size)
            self.sent += size
            self.blocked = not exchange.send_data(data)
        if self.sent == self.to_send and not self.sent_end and not self.over:
            self.sent_end = True
            self.finish()

    def finish(self) -> None:
        """All is sent."""
        assert self.exchange is not None
        self.exchange.send_end()
        self._both()

    def on_writable(self) -> None:
        if self.over:
            self.violated("on_writable after the end")
        self.blocked = False
        if self.started:
            self.pump()

    # --- receiving

    def on_data(self, data: bytes) -> None:
        if self.over or self.got_end:
            self.violated("data after the end")
        for at in range(0, len(data), 64 * KIB):
            piece = data[at : at + 64 * KIB]
            if bytes(piece) != pattern(self.key, self.received, len(piece)):
                self.violated(f"wrong bytes at {self.received}")
            self.received += len(piece)
        self.unread += len(data)
        if self.delay >= 0:
            wait = self.delay * self.world.rng.random()
            if wait:
                self.world.at(wait, lambda: self.read(len(data)))
            else:
                self.read(len(data))

    def read(self, count: int) -> None:
        """These bytes have left."""
        self.unread -= count
        if self.exchange is not None and not self.cancelled and self.error is None:
            self.exchange.consumed(count)

    def on_end(self, trailers: Headers) -> None:
        if self.over or self.got_end:
            self.violated("an end after the end")
        self.got_end = True
        self.ended()
        self._both()

    def ended(self) -> None:
        """The peer's direction is complete."""
        if self.received != self.to_receive:
            self.violated(f"{self.received} bytes and an end, not {self.to_receive}")

    def _both(self) -> None:
        if self.sent_end and self.got_end:
            self.over = True

    def on_reset(self, error: ExchangeReset) -> None:
        if self.cancelled or self.error is not None:
            self.violated("a reset after the end")
        self.over = True
        self.error = error

    def cancel(self, hop: Hop, reason: Reason) -> None:
        """Give it up, if it is not over."""
        if not self.over and self.exchange is not None:
            self.over = self.cancelled = True
            self.exchange.cancel(hop, reason, "the test does not want it any more")


class Client(Party):
    """The gateway's place: a `tunnel.ports.ResponseSink`."""

    def __init__(self, world: World, plan: Plan, key: int) -> None:
        up = plan.up if not plan.refused else 0
        super().__init__(world, plan, key, up, plan.down, plan.reading)
        self.heads: list[ResponseBlock] = []
        self.early = False

    @property
    def whole(self) -> bool:
        """The answer was complete."""
        return self.got_end

    @property
    def clean(self) -> bool:
        """It has either the whole answer, or knows that it does not."""
        return self.got_end or self.error is not None or self.cancelled

    def on_response(self, head: ResponseBlock) -> None:
        if self.over:
            self.violated("a head after the end")
        self.heads.append(head)
        if head.interim:
            return
        if head.upgrade:
            self.pump()
        elif self.plan.upgrade:
            self.sent_end = True
        if head.ended:
            self.on_end([])

    def ended(self) -> None:
        super().ended()
        if not self.sent_end and not self.plan.upgrade:
            self.over = self.early = True
            assert self.exchange is not None
            self.exchange.cancel(Hop.GATEWAY, Reason.STOPPED, "the answer ended before its request")


class Server(Party):
    """The relay's place, with an API server behind it: a `tunnel.ports.RequestSink`."""

    def __init__(self, world: World, plan: Plan, key: int, exchange: AgentExchange, ended: bool) -> None:
        super().__init__(world, plan, key, plan.down, plan.up if not plan.refused else 0, plan.reading_up)
        self.exchange = self.answering = exchange
        self.got_end = ended
        self.upstream_open = True
        if plan.early:
            self.delay = -1.0
        world.at(plan.think, self.answer)
        if plan.cancel_server >= 0:
            world.at(plan.cancel_server, self.give_up)

    def answer(self) -> None:
        """The API server's head, and then its body."""
        if self.over:
            return
        for _ in range(self.plan.interims):
            self.answering.send_response(ResponseBlock(103, [(b"link", b"</x>")], interim=True))
        if self.plan.upgrade and not self.plan.refused:
            self.answering.send_response(ResponseBlock(101, [(b"upgrade", b"spdy/3.1")], upgrade=True))
        else:
            headers = [(b"content-type", b"application/json")]
            if self.plan.length:
                headers.append((b"content-length", b"%d" % self.plan.down))
            self.answering.send_response(ResponseBlock(413 if self.plan.early else 200, headers))
        self.pump()

    def give_up(self) -> None:
        """The API server's connection broke."""
        if not self.over:
            self.cancel(Hop.APISERVER, Reason.BAD_RESPONSE)
            self.close_upstream()

    def on_reset(self, error: ExchangeReset) -> None:
        super().on_reset(error)
        self.close_upstream()

    def close_upstream(self) -> None:
        """It takes its time."""
        self.world.at(self.plan.closing * self.world.rng.random(), self.closed_upstream)

    def closed_upstream(self) -> None:
        self.upstream_open = False
        self.answering.released()


class Traffic:
    """Opens exchanges by plan, and keeps both ends of each."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.clients: list[Client] = []
        self.servers: dict[int, Server] = {}
        self.world: World

    def handler(self, exchange: AgentExchange, head: RequestBlock) -> Server:
        """The agent's handler."""
        key = int(dict(head.headers)[b"x-plan"])
        server = self.servers[key] = Server(self.world, self.plans[key], key, exchange, head.ended)
        return server

    def open(self, plan: Plan) -> Client:
        """A client opens an exchange now."""
        key = len(self.plans)
        self.plans.append(plan)
        client = Client(self.world, plan, key)
        self.clients.append(client)
        headers = [(b"x-plan", b"%d" % key)]
        if plan.upgrade:
            headers.append((b"upgrade", b"spdy/3.1"))
        ended = not plan.up and not plan.upgrade
        block = RequestBlock(b"POST" if plan.up else b"GET", b"/api", headers, ended, plan.long, plan.upgrade)
        client.sent_end = ended
        client.exchange = self.enter(block, client)
        if not plan.upgrade:
            client.pump()
        if plan.cancel_client >= 0:
            self.world.at(plan.cancel_client, lambda: client.cancel(Hop.CLIENT, Reason.CANCELLED))
        return client

    def enter(self, block: RequestBlock, client: Client) -> Exchange:
        """Where clients come in."""
        return self.world.stub.open(block, client)

    @property
    def settled(self) -> bool:
        """Every client knows what became of its exchange, and no core keeps any."""
        world = self.world
        return all(client.clean for client in self.clients) and not world.stub.exchanges and not world.agent.exchanges


def joined(**options: object) -> tuple[World, Traffic]:
    """A world and its traffic."""
    traffic = Traffic()
    traffic.world = World(traffic.handler, **options)  # type: ignore[arg-type]
    return traffic.world, traffic
