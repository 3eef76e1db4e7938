"""The other replicas as this one asks them: a session with each that is alive, dialled again whenever it is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import structlog

from stub.ownership import Replica
from stub.peers.asking import AskingSession
from stub.peers.dial import PeerDialler, PeerFailed
from stub.peers.errors import PeerGone, PeerUnready
from stub.peers.hello import OWN, SESSION, PeerHello, PeerWelcome
from stub.peers.links import AskingLinks
from stub.peers.load import Load, load_of
from tunnel.adapter import LinkConnection
from tunnel.backoff import BackOff
from tunnel.errors import TunnelError
from tunnel.link import Link
from tunnel.ports import Exchange, RequestBlock, ResponseSink

log = structlog.get_logger("kulvert.stub")


class Peers:
    """`tell` says who is alive, `run` keeps the sessions, `open` uses them. Nothing of it waits on a request's path."""

    def __init__(
        self,
        dialler: PeerDialler,
        clock: Callable[[], float],
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._dialler = dialler
        self._clock = clock
        self._uniform = uniform
        self._told: dict[str, Replica] = {}
        self._kept: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """The address that is dialled, and who does."""
        self._sessions: dict[str, AskingSession] = {}
        self._all: set[AskingSession] = set()
        self._news = asyncio.Event()

    # --- exchanges

    def open(self, replica: str, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """An exchange on the holder's agents. The sink is not called before this returns. Raises StubError (PeerGone,
        PeerUnready, SessionOverloaded) where nothing was sent, and HeadError (431) for a head that is too long.

        What the holder refuses comes to the sink as `stub.peers.errors.NotOpened`.
        """
        session = self._sessions.get(replica)
        if session is not None:
            return session.open(cluster, head, sink)
        if replica not in self._told:
            raise PeerGone(cluster, "the replica that held this cluster is gone; try again")
        raise PeerUnready(cluster, "the replica that holds this cluster cannot be asked at present; try again")

    def ready(self, replica: str) -> bool:
        """Whether there is a session that takes exchanges."""
        session = self._sessions.get(replica)
        return session is not None and session.ready

    @property
    def load(self) -> Load:
        """What is asked of the others."""
        return load_of(session.mux for session in self._all)

    # --- who is alive

    def tell(self, replicas: Sequence[Replica]) -> None:
        """All that are alive. One that is gone, or has come again at another address, gets no new exchanges over the
        old link; what that still serves ends by itself, or with it.
        """
        own = self._dialler.identity
        self._told = {one.identity: one for one in replicas if one.identity != own and one.peer_address}
        for identity, session in list(self._sessions.items()):
            if self._address(identity) != session.address:
                del self._sessions[identity]
                session.leave()
        self._news.set()

    def close(self) -> None:
        """End every session now; nothing is dialled any more."""
        self._told.clear()
        self._news.set()
        self._end_all()

    def _end_all(self) -> None:
        self._sessions.clear()
        for session in tuple(self._all):
            session.mux.close("this replica is stopping")

    async def run(self) -> None:
        """Keep the sessions until cancelled. It may be begun again: who was told of is not forgotten."""
        self._kept.clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sweep(), name="peers: sweep")
                while True:
                    self._news.clear()
                    self._attend(group)
                    await self._news.wait()
        finally:
            self._end_all()

    def _attend(self, group: asyncio.TaskGroup) -> None:
        """One task for each that is alive, at its address."""
        for identity, (address, task) in list(self._kept.items()):
            if self._address(identity) != address:
                del self._kept[identity]
                task.cancel()
        for identity, replica in self._told.items():
            if identity not in self._kept:
                task = group.create_task(self._keep(replica), name=f"peer {identity}")
                self._kept[identity] = (replica.peer_address, task)

    def _address(self, identity: str) -> str:
        found = self._told.get(identity)
        return found.peer_address if found is not None else ""

    # --- one of them

    async def _keep(self, replica: Replica) -> None:
        """What fails with one replica is no other one's business."""
        limits = self._dialler.limits
        backoff, known = BackOff(self._uniform, limits.first, limits.most), ""
        while True:
            try:
                session, ended = await self._attach(replica)
                known = ""
                backoff.reset()
                await self._serve(session, ended)
            except Exception as error:
                known = _tell_failed(replica, error, known)
            await asyncio.sleep(backoff.next())

    async def _attach(self, replica: Replica) -> tuple[AskingSession, asyncio.Future[str]]:
        limits, identity = self._dialler.limits, self._dialler.identity
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        made: list[AskingSession] = []

        def admit(connection: LinkConnection, welcome: PeerWelcome) -> Link:
            session = AskingSession(replica, welcome, limits, self._clock, _tell_bug)
            session.on_end = lambda reason: self._ended(session, ended, reason)
            made.append(session)
            self._all.add(session)
            return session.attach_shared(connection)

        hello = PeerHello(identity, replica.identity, SESSION, credit=limits.link.shared_credit)
        try:
            await self._dialler.dial(replica, hello, admit)
        except BaseException:
            for session in made:
                session.mux.close("not needed any more")
            raise
        return made[0], ended

    def _ended(self, session: AskingSession, ended: asyncio.Future[str], reason: str) -> None:
        self._all.discard(session)
        if self._sessions.get(session.replica) is session:
            del self._sessions[session.replica]
        if not ended.done():
            ended.set_result(reason)

    async def _serve(self, session: AskingSession, ended: asyncio.Future[str]) -> None:
        if ended.done():
            return
        if self._address(session.replica) != session.address:  # told meanwhile
            session.leave()
            return
        self._sessions[session.replica] = session
        links = AskingLinks(session, self._dial_own, self._dialler.limits)
        log.info("attached to another replica", replica=session.replica)
        try:
            async with asyncio.TaskGroup() as group:
                dialling = group.create_task(links.run(), name=f"peer {session.replica}: own links")
                reason = await ended
                log.warning("the link to another replica has ended", replica=session.replica, reason=reason)
                dialling.cancel()
        except Exception:
            session.mux.close("internal error")
            raise

    async def _dial_own(self, session: AskingSession, link_id: int) -> None:
        replica, welcome = Replica(session.replica, session.address), session.welcome

        def admit(connection: LinkConnection, _welcome: PeerWelcome) -> Link:
            if session.mux.closed_reason is not None:
                raise PeerFailed("the session has ended meanwhile")
            return session.attach_own(link_id, connection)

        own = (welcome.session, welcome.secret, link_id)
        await self._dialler.dial(replica, PeerHello(self._dialler.identity, session.replica, OWN, (1,), 0, *own), admit)

    # --- time

    async def _sweep(self) -> None:
        """What fails in one session ends that one."""
        while True:
            await asyncio.sleep(self._dialler.limits.timing.sweep)
            now = self._clock()
            for session in tuple(self._all):
                try:
                    session.sweep(now)
                except Exception as error:
                    _tell_bug(None, error)
                    session.mux.close("internal error")


def _tell_failed(replica: Replica, error: Exception, known: str) -> str:
    """Once for each reason in a row, which it gives."""
    why = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    if why == known:
        return known
    if isinstance(error, TunnelError | OSError):  # TimeoutError is one
        log.warning("another replica is not reached", replica=replica.identity, error=why)
    else:
        log.error("internal error with another replica", replica=replica.identity, exc_info=error)
    return why


def _tell_bug(_exchange: object, error: BaseException) -> None:
    log.error("internal error in an exchange with another replica", exc_info=error)
