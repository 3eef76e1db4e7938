"""The session of a replica that is asked: the agent's end of the link protocol, with agents' sessions behind it."""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from stub.errors import Draining
from stub.ownership import Ownership
from stub.peers.hello import PeerHello, PeerWelcome
from stub.peers.limits import EPOCH, PeerLimits
from stub.peers.relay import Opener, relayed
from tunnel.adapter import LinkConnection
from tunnel.agentmux import AgentMux
from tunnel.errors import Hop
from tunnel.link import Link
from tunnel.messages import Message, encode_message
from tunnel.ports import Exchange, RequestBlock, ResponseSink

CROWD: Final = 2
"""From this many exchanges on, waiting for the end of the loop's turn saves more than it delays."""
REMEMBERED_LINKS: Final = 10_000
ANNOUNCED: Final = 0.005
"""Seconds between two announcements of how many exchanges wait for an own link."""


def held_here(ownership: Ownership, opener: Opener) -> Opener:
    """Only what this replica holds at this very moment: the last look before a head leaves."""

    def opened(cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        if not ownership.place(cluster).mine:
            raise Draining(cluster, "this replica does not hold the cluster any more; try again")
        return opener(cluster, head, sink)

    return opened


class HoldingMux(AgentMux):
    """A replica speaks as the stub that it is."""

    hop = Hop.STUB
    who = "the replica that holds the cluster"


class HoldingSession:
    """Made for a replica that has proved who it is. `id` and `secret` are for its own links."""

    def __init__(
        self,
        hello: PeerHello,
        opener: Opener,
        limits: PeerLimits,
        clock: Callable[[], float],
        randomness: Callable[[int], bytes],
        on_bug: Callable[[object, BaseException], None],
    ) -> None:
        self.replica = hello.identity
        self.id = randomness(16).hex()
        self._secret = randomness(32).hex()
        self._limits = limits
        self._clock = clock
        self._seen_links: OrderedDict[int, None] = OrderedDict()
        self._announcing: asyncio.TimerHandle | None = None
        self._tidied = clock()
        self.mux = HoldingMux(
            epoch=EPOCH,
            max_exchanges=limits.link.exchanges,
            handler=lambda exchange, head: relayed(exchange, head, opener),
            on_links_wanted=self._links_wanted,
            peer_credit=hello.credit,
            clock=clock,
            limits=limits.link,
            timing=limits.timing,
            on_message=_ignored,
            on_bug=on_bug,
        )

    def welcome(self, version: int) -> PeerWelcome:
        """What the other replica is told of it."""
        limits = self._limits
        exchanges, credit = min(limits.link.exchanges, 10**6), limits.link.shared_credit
        return PeerWelcome(version, self.id, self._secret, credit, exchanges, limits.links, limits.warm)

    # --- links

    def attach_shared(self, connection: LinkConnection, detached: Callable[[str], None]) -> None:
        """The connection that was welcomed."""

        def lost(link: Link, reason: str) -> None:
            self.mux.detach(link, reason)
            if self._announcing is not None:
                self._announcing.cancel()
            detached(reason)

        connection.attach(self.mux.shared, lost, self._crowded)

    def refuses(self, hello: PeerHello) -> str:
        """Why an own link is not taken, or ""."""
        if hello.identity != self.replica or not hmac.compare_digest(hello.secret.encode(), self._secret.encode()):
            return "the secret of this own link is wrong"
        if hello.link_id in self._seen_links:
            return "this linkId was used before"
        if len(self.mux.own_links) >= self._limits.links:
            return "there are as many own links as were allowed"
        return ""

    def attach_own(self, link_id: int, connection: LinkConnection) -> None:
        """A further connection, which is not refused, becomes an own link."""
        self._seen_links[link_id] = None
        if len(self._seen_links) > REMEMBERED_LINKS:
            self._seen_links.popitem(last=False)
        link = Link(self.mux, own=True, link_id=link_id, limits=self.mux.limits)
        connection.attach(link, self.mux.detach, _never)
        self.mux.attach(link)

    def _crowded(self) -> bool:
        return len(self.mux.exchanges) > CROWD

    def _links_wanted(self) -> None:
        """The other side dials. It is told soon, and not for each exchange."""
        if self._announcing is None and self.mux.waiting:
            self._announcing = asyncio.get_running_loop().call_later(ANNOUNCED, self._announce)

    def _announce(self) -> None:
        self._announcing = None
        waiting = len(self.mux.waiting)
        if waiting and self.mux.closed_reason is None:
            self.mux.shared.message(encode_message("links", waiting=min(waiting, 10**6)))

    # --- time

    def sweep(self, now: float) -> None:
        """What time alone brings."""
        self.mux.sweep(now)
        if now - self._tidied >= self._limits.tidy:
            self._tidied = now
            for link in self.mux.free[self._limits.warm :]:
                link.finish("idle beyond the warm ones")
            self._links_wanted()

    def drain(self) -> None:
        """Take no new exchanges, and say which was the last; what is under way finishes."""
        if not self.mux.draining and self.mux.closed_reason is None:
            self.mux.drain()
            self.mux.shared.message(encode_message("drain", last=self.mux.highest))


def _ignored(_message: Message) -> None:
    """A replica that asks has nothing to say yet."""


def _never() -> bool:
    return False
