"""A session: one agent process, attached over its shared link, with as many own links as it has dialled."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from stub.standing import Standing
from tunnel.adapter import LinkConnection
from tunnel.calls import Calls, Params
from tunnel.drain import Drain
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.handshake import Hello
from tunnel.link import Link
from tunnel.messages import Message, number, text
from tunnel.ports import Exchange, RequestBlock, ResponseSink
from tunnel.stubmux import StubMux

REMEMBERED_LINKS = 10_000
CROWD = 2
"""From this many exchanges on, waiting for the end of the loop's turn saves more than it delays."""


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Who is at the other end."""

    cluster: str
    cluster_id: str
    agent: str
    instance: str
    software: str
    address: str


@dataclass(slots=True)
class Health:
    """What the agent last said of its API server."""

    ready: bool = True
    message: str = ""
    latency_ms: int = 0


@dataclass(eq=False, slots=True)
class Session:
    """Made once the agent has proved who it is. `secret` proves that own links and a successor are the same agent's."""

    id: str
    secret: bytes = field(repr=False)
    info: AgentInfo
    mux: StubMux
    calls: Calls = field(repr=False)
    standing: Standing = field(repr=False)
    max_links: int
    via: str = ""
    """The replica whose door its agent came in by, where that was another one: its links go through there."""
    health: Health = field(default_factory=Health)
    draining: bool = False
    """It takes no new exchanges: one of both ends has said so."""
    leaving: bool = False
    """This end has: the session is over once what is under way has ended."""
    _seen_links: OrderedDict[int, None] = field(default_factory=OrderedDict, repr=False)
    _ways: dict[int, str] = field(default_factory=dict, repr=False)

    def open(self, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """A new exchange with this agent."""
        exchange = self.mux.open(head, sink)
        exchange.agent = self.info.agent
        return exchange

    async def call(self, method: str, params: Params, timeout: float = 10.0) -> Params:
        """Ask the agent something rare. Raises `tunnel.calls.CallFailed`."""
        return await self.calls.call(method, params, timeout)

    @property
    def available(self) -> bool:
        """Whether new exchanges may be given to it at all."""
        mux = self.mux
        if self.draining or mux.suspect or mux.stale or mux.closed_reason is not None:
            return False
        return len(mux.exchanges) < mux.max_exchanges

    @property
    def load(self) -> int:
        """Exchanges under way."""
        return len(self.mux.exchanges)

    def crowded(self) -> bool:
        """Whether a write should wait for the end of the loop's turn."""
        return len(self.mux.exchanges) > CROWD

    def refuses(self, link_id: int) -> str:
        """Why an own link with this id is not taken, or ""."""
        if link_id in self._seen_links:
            return "this linkId was used before"
        if len(self.mux.own_links) >= self.max_links:
            return "there are as many own links as were announced"
        return ""

    @property
    def ways(self) -> set[str]:
        """The other replicas by way of which its links come: what they have of it ends with them."""
        own = {via for link_id, via in self._ways.items() if via and link_id in self.mux.own_links}
        return own | {self.via} if self.via else own

    def attach_own(self, link_id: int, connection: LinkConnection, via: str = "") -> None:
        """A further connection, which the session does not refuse, becomes an own link. `via`: another replica passes
        it on.
        """
        self._seen_links[link_id] = None
        self._ways = {one: way for one, way in self._ways.items() if one in self.mux.own_links} | {link_id: via}
        if len(self._seen_links) > REMEMBERED_LINKS:
            self._seen_links.popitem(last=False)
        link = Link(self.mux, own=True, link_id=link_id, limits=self.mux.limits)
        connection.attach(link, self.mux.detach, _never)
        self.mux.attach(link)

    def drain(self, address: str = "") -> None:
        """Hand it over: its agent is told to attach elsewhere (at `address`, if any), and finishes what is here."""
        if not self.leaving:
            self.draining = self.leaving = True
            self.mux.shared.message(Drain(self.mux.highest, address).encode())

    def on_message(self, message: Message) -> None:
        """A control message of the agent's."""
        if message["kind"] == "health":
            ready = message.get("ready") is True
            self.health = Health(ready, text(message, "message", 1024, ""), number(message, "latencyMs", 0, 10**7, 0))
        elif message["kind"] == "drain":
            self._drained(Drain.parse(message).last)
        else:
            self.calls.on_message(message)

    def _drained(self, last: int) -> None:
        """The agent shuts down: what it did not accept may go elsewhere, the rest finishes."""
        self.draining = True
        for exchange in [e for e in self.mux.exchanges.values() if e.id > last]:
            exchange.fail(ExchangeReset(Hop.AGENT, Reason.DRAINING, "the agent is shutting down; not processed"))


def info_of(hello: Hello, address: str) -> AgentInfo:
    """What a hello tells of an agent, and where it comes from."""
    who = (hello.cluster, hello.cluster_id, hello.agent, hello.instance, hello.software)
    return AgentInfo(*who, address)


def address_of(connection: LinkConnection) -> str:
    """Where a connection comes from."""
    peer: Any = connection.transport.get_extra_info("peername") if connection.transport else None
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""


def _never() -> bool:
    return False
