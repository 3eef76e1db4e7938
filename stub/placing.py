"""Where an agent that has proved itself belongs: here, at another replica, or nowhere just now, so that it waits.

A replica that waits keeps its agents' connections and says so to them (`wait`), instead of sending them away to come
back with a handshake each: when a Lease changes hands, thousands are attached within a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from stub.ownership import Ownership, Place, Replica
from tunnel.frames import CONTROL, encode
from tunnel.handshake import Challenge, Refused, Wait
from tunnel.messages import Message

if TYPE_CHECKING:
    from tunnel.adapter import LinkConnection

log = structlog.get_logger("kulvert.stub")
EVERY: Final = 5.0
"""Seconds between two words to those who wait; each tells them to be patient for three times as long."""
LOOK: Final = 0.5
"""Seconds between two looks at where they belong, besides those when something has changed."""
SLICE: Final = 50
"""Who waits is placed so many at a time, or a Lease's hand-over would stop the loop for a second."""


class Adopter(Protocol):
    """Passes an agent's connection on to the replica where it belongs (stub.peers)."""

    def adopt(self, connection: LinkConnection, replica: Replica, challenge: Challenge, hello: Message) -> None:
        """From now on the connection's bytes are that replica's. Raises Refused where it cannot be reached."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """It belongs to another replica, which is alive."""

    replica: Replica


def whither(
    place: Place, replicas: tuple[Replica, ...], reached: Callable[[str], bool] = lambda _identity: True
) -> Place | Elsewhere | None:
    """Here (the place itself), elsewhere, or None: nobody takes it at present. A holder that is not `reached` from here
    is probably gone, and its Lease will be over soon.
    """
    if place.mine:
        return place
    found = next((one for one in replicas if place.replica and one.identity == place.replica), None)
    return Elsewhere(found) if found is not None and reached(found.identity) else None


def moved(replica: Replica, hello: Message) -> Refused | None:
    """What the agent is to be told: the address where agents reach that replica, or its hint where the agent can follow
    one. None where there is neither: the connection is to be passed on.
    """
    if replica.agents_address:
        return Refused("moved", "another replica has this cluster's agents", address=replica.agents_address)
    if replica.hint and hello.get("hints") is True:
        return Refused("moved", "another worker has this cluster's agents", hint=replica.hint)
    return None


class WaitingRoom:
    """Connections whose agents have proved themselves, and which belong nowhere just now. `most` bounds them.
    `away`: there is no use in waiting here, and the agents' address of a better server, or empty; None: there is.
    """

    def __init__(
        self,
        ownership: Ownership,
        most: int = 20_000,
        every: float = EVERY,
        away: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._ownership = ownership
        self._away = away
        self._most = most
        self._every = every
        self._look = min(LOOK, every)
        self._told = 0.0
        self._waiting: dict[LinkConnection, Callable[[], bool]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._placing = False
        self._unsubscribe: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self) -> None:
        """Listen to what changes."""
        self._unsubscribe = self._ownership.subscribe(self._changed)

    def close(self) -> None:
        """Nobody waits any more."""
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._waiting):
            connection.end("the server is stopping")
        self._waiting.clear()

    def enter(self, connection: LinkConnection, again: Callable[[], bool]) -> None:
        """`again` tries to place it, and says whether that is done, one way or another. Raises Refused: it is full, or
        of no use.
        """
        if (away := self._away()) is not None:
            raise _useless(away)
        if len(self._waiting) >= self._most:
            raise Refused("overloaded", "as many agents wait here as this server takes", retry_after=10)
        self._waiting[connection] = again
        self._tell(connection)
        if self._timer is None:
            self._told = asyncio.get_running_loop().time()
            self._timer = asyncio.get_running_loop().call_later(self._look, self._pass_time)

    def leave(self, connection: LinkConnection) -> None:
        """Its connection has ended. Harmless for one that does not wait."""
        self._waiting.pop(connection, None)

    def _send_away(self, connection: LinkConnection, refused: Refused) -> None:
        self._waiting.pop(connection, None)
        connection.send(encode(CONTROL, payload=refused.encode()))
        connection.end(refused.message)

    def _tell(self, connection: LinkConnection) -> None:
        connection.send(encode(CONTROL, payload=Wait(3 * self._every).encode()))

    def _pass_time(self) -> None:
        self._timer, loop = None, asyncio.get_running_loop()
        self._changed()
        if not self._waiting:
            return
        self._timer = loop.call_later(self._look, self._pass_time)
        if loop.time() - self._told >= self._every:
            self._told = loop.time()
            for connection in tuple(self._waiting):
                self._tell(connection)

    def _changed(self) -> None:
        if self._waiting and not self._placing:
            self._placing = True
            self._place(list(self._waiting))

    def _place(self, left: list[LinkConnection]) -> None:
        now, later = left[:SLICE], left[SLICE:]
        for connection in now:
            self._place_one(connection)
        self._placing = bool(later)
        if later:
            asyncio.get_running_loop().call_soon(self._place, later)

    def _place_one(self, connection: LinkConnection) -> None:
        """What fails with one ends that one: the others wait on."""
        again = self._waiting.get(connection)
        try:
            if again is None:
                return
            if again():
                self._waiting.pop(connection, None)
            elif (away := self._away()) is not None:
                self._send_away(connection, _useless(away))
        except Exception as error:
            log.error("internal error while an agent waited", exc_info=error)
            self._waiting.pop(connection, None)
            connection.end("internal error")


def _useless(away: str) -> Refused:
    """Whoever waits here would wait for a replica that cannot see who holds what."""
    if away:
        return Refused("moved", "this replica is cut off from the hub, and another one is not", address=away)
    return Refused("standby", "this replica is cut off from the hub, and another one is not", retry_after=1)
