"""Passes agents' connections on to the replica where they belong, whose door takes them as if they had come there.

This replica has given the challenge and read hello; it reads nothing of what follows. Only hellos of sessions were
proved to it. When a Lease changes hands, thousands come within a second: a few at a time are dialled for, so that each
handshake is done in time, and the others are told to be patient.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from stub.ownership import Replica
from stub.peers.dial import PeerDialler
from stub.peers.hello import ADOPT, Adopted, PeerHello, PeerWelcome
from stub.peers.pipe import Pipe, join
from stub.session import address_of
from stub.standing import peer_certificate
from tunnel.adapter import LinkConnection
from tunnel.errors import TunnelError
from tunnel.frames import CONTROL, encode
from tunnel.handshake import Challenge, Refused, Wait
from tunnel.messages import Message

log = structlog.get_logger("kulvert.stub")
RETRY_AFTER: Final = 1
"""Seconds."""
EVERY: Final = 5.0
"""Seconds between two words to those who wait to be dialled for."""
PROVED: Final = "shared"
"""The kind of hello that has been proved when it is passed on: of a session."""


class _Turns:
    """So many are dialled for at a time, in the order in which they came; `pending` are those, and who waits."""

    def __init__(self, at_once: int) -> None:
        self.pending = 0
        self.waiting: dict[Pipe, None] = {}
        self.free = asyncio.Semaphore(at_once)

    async def take(self, near: Pipe) -> None:
        """Returns when it is this one's turn; `free` is to be released after that."""
        if self.free.locked():
            self.waiting[near] = None
            _be_patient(near)
        try:
            await self.free.acquire()
        finally:
            self.waiting.pop(near, None)


class Adopting:
    """Implements `stub.placing.Adopter`. `run` owns the tasks; an adopted pair of connections that is idle has none."""

    def __init__(self, dialler: PeerDialler) -> None:
        self._dialler = dialler
        self._group: asyncio.TaskGroup | None = None
        self._pipes: set[Pipe] = set()
        self._proved = _Turns(dialler.limits.adopting)
        self._unproved = _Turns(dialler.limits.dialling_unproved)

    @property
    def adopted(self) -> int:
        """Agents' connections that are passed on."""
        return len(self._pipes)

    async def run(self) -> None:
        """Until cancelled; then every pair ends, in order."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                while True:
                    await asyncio.sleep(EVERY)
                    for near in (*self._proved.waiting, *self._unproved.waiting):
                        _be_patient(near)
        finally:
            self._group = None
            self.close("this replica is stopping")

    def close(self, reason: str) -> None:
        """End every pair: their agents come again, elsewhere."""
        for pipe in tuple(self._pipes):
            pipe.finish(reason)

    def adopt(self, connection: LinkConnection, replica: Replica, challenge: Challenge, hello: Message) -> None:
        """See `stub.placing.Adopter`. It returns before the other replica is reached; an agent whose is not is told."""
        if self._group is None or len(self._pipes) >= self._dialler.limits.adopted:
            raise Refused("overloaded", "this replica passes on no more agents", retry_after=RETRY_AFTER)
        turns = self._proved if hello.get("link") == PROVED else self._unproved
        if turns is self._unproved and turns.pending >= self._dialler.limits.unproved:
            raise Refused("overloaded", "too many wait here to be passed on", retry_after=RETRY_AFTER)
        adopted = Adopted(challenge, hello, address_of(connection), peer_certificate(connection))
        greeting = PeerHello(self._dialler.identity, replica.identity, ADOPT, adopted=adopted)
        near = Pipe(connection)
        self._pipes.add(near)
        near.attach(self._dial(self._group, near, replica, greeting, turns))
        near.stop_reading()

    def _dial(
        self, group: asyncio.TaskGroup, near: Pipe, replica: Replica, greeting: PeerHello, turns: _Turns
    ) -> Callable[[str], None]:
        task = group.create_task(self._in_turn(near, replica, greeting, turns), name=f"peer {replica.identity}: adopt")
        turns.pending += 1

        def over(_task: asyncio.Task[None]) -> None:
            turns.pending -= 1

        def ended(_reason: str) -> None:
            self._pipes.discard(near)
            task.cancel()

        task.add_done_callback(over)
        return ended

    async def _in_turn(self, near: Pipe, replica: Replica, greeting: PeerHello, turns: _Turns) -> None:
        await turns.take(near)
        try:
            await self._join(near, replica, greeting)
        finally:
            turns.free.release()

    async def _join(self, near: Pipe, replica: Replica, greeting: PeerHello) -> None:
        def admit(connection: LinkConnection, _welcome: PeerWelcome) -> Pipe:
            far = Pipe(connection)
            join(near, far)
            far.attach(lambda _reason: None)
            near.read_on()
            return far

        try:
            await self._dialler.dial(replica, greeting, admit)
        except (TunnelError, OSError, TimeoutError, RecursionError, ValueError) as error:
            why = str(error) or "no answer in time"
            log.warning("an agent cannot be passed on", replica=replica.identity, error=why)
            refused = Refused("standby", "the replica that has this cluster's agents is not reached", "", RETRY_AFTER)
            near.refuse(encode(CONTROL, payload=refused.encode()), refused.message)


def _be_patient(near: Pipe) -> None:
    near.push(encode(CONTROL, payload=Wait(3 * EVERY).encode()))
