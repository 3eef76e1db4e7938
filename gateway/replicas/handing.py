"""Sessions whose cluster is not this replica's any more are handed over: their agents are told where to go.

While nobody holds a cluster its sessions stay: streams that are under way go on, and the holder of before, which nobody
has replaced, may be the next one. New requests are kept back by `Ownership.place` alone, before each head. Only a
replica that knows itself cut off (`gateway.replicas.cutoff`) sends those away, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stub.ownership import Ownership, Place
from stub.session import Session
from stub.sessions import Sessions


class Handing:
    """`look` is called at each change of who holds what. `away` says where those go whom nobody holds, as far as it is
    known here (an address, or empty); None: they stay.
    """

    def __init__(self, ownership: Ownership, sessions: Sessions, away: Callable[[], str | None] = lambda: None) -> None:
        self._ownership = ownership
        self._sessions = sessions
        self._away = away

    def look(self) -> None:
        """Once."""
        replicas, away = {one.identity: one for one in self._ownership.replicas()}, self._away()
        for cluster in self._sessions.clusters():
            place = self._ownership.place(cluster)
            holder = replicas.get(place.replica)
            address = holder.agents_address if holder is not None and not place.mine else ""
            lost = away is not None and not place.replica and not place.mine
            for session in self._sessions.of(cluster):
                if lost or _is_over(session, place) or not session.ways <= replicas.keys():
                    session.drain((away or "") if lost else address)

    async def emptied(self, patience: float, now: Callable[[], float]) -> None:
        """Returns when no session is left that takes exchanges, or after `patience` seconds."""
        deadline = now() + patience  # a shutdown's last seconds: nothing else needs to be told of sessions that leave
        while now() < deadline and any(not one.leaving for one in self._sessions.all()):  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.02)


def _is_over(session: Session, place: Place) -> bool:
    """Somebody else holds the cluster, or this replica does in another holding, whose epoch its agents must learn."""
    return session.mux.epoch != place.epoch if place.mine else bool(place.replica)
