"""The removal of clusters, as wishes that are on record: asked for by a command or the API, done by the server that
runs, step by step. A server that ends in the middle goes on where it was.

The order strands nobody: users go first, while the tunnel is open Kulvert cleans up behind itself, then others who have
put a finalizer on the cluster, then the agent leaves its cluster, and only then its certificates and its name are gone.
"""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.database import Database

REMEMBERED: Final = 3_600.0
"""Seconds for which a removal that is done is kept for whoever watches it."""
INSTALLED: Final = (
    "Namespace kulvert, and all that is in it",
    "ClusterRole kulvert-agent",
    "ClusterRoleBinding kulvert-agent",
    "ClusterRole kulvert-agent-uninstall",
    "ClusterRoleBinding kulvert-agent-uninstall",
)
"""What `kulvert cluster join` puts into a cluster."""


_PUT: Final = """
    INSERT INTO removal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    force = excluded.force OR (force AND requested = excluded.requested), requested = excluded.requested,
    by = excluded.by, done = excluded.done, waiting = excluded.waiting, remains = excluded.remains,
    told = excluded.told, finished = excluded.finished
"""
"""That it was forced meanwhile, by another process, stays with a wish."""


class Step(enum.Enum):
    """In this order."""

    CLOSED = "no users"
    CLEANED = "cleaned up"
    FINALIZED = "no finalizers"
    UNINSTALLED = "agent uninstalled"
    RELEASED = "name released"


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was taken, or passed over; `message` says how."""

    step: Step
    when: float
    message: str


@dataclass(frozen=True, slots=True)
class Removal:
    """One wish. `waiting` is for what its next step waits, `left` what was left behind in the cluster, `told` when the
    agent was told to uninstall itself; `finished` when all was done.
    """

    cluster: str
    requested: float
    by: str = ""
    force: bool = False
    done: tuple[Done, ...] = ()
    waiting: str = ""
    left: tuple[str, ...] = ()
    told: float | None = None
    finished: float | None = None

    @property
    def next_step(self) -> Step | None:
        """The first that is not done."""
        there = {one.step for one in self.done}
        return next((step for step in Step if step not in there), None)

    def after(self, step: Step, now: float, message: str, left: tuple[str, ...] = ()) -> Removal:
        """With one step more."""
        done = (*self.done, Done(step, now, message))
        more = tuple(dict.fromkeys((*self.left, *left)))
        return replace(self, done=done, waiting="", left=more, finished=now if step is Step.RELEASED else None)


class Move(enum.Enum):
    """What to do about the next step."""

    DO = "do"
    CALL = "call"
    SKIP = "skip"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Facts:
    """`joined`: a cluster was accepted for the name, so that there may be an agent in it; `attached`: one is; `quiet`:
    none has come for so long that one which was told to go has gone.
    """

    joined: bool
    attached: bool
    finalizers: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    """Objects that Kulvert knows to have made there."""
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Next:
    """The next move, and what is to be said of it; `left` is what a SKIP leaves behind."""

    move: Move
    step: Step
    message: str = ""
    left: tuple[str, ...] = ()


def next_move(removal: Removal, facts: Facts) -> Next | None:
    """What comes next; None where all is done."""
    step = removal.next_step
    if step is None:
        return None
    if step is Step.FINALIZED and facts.finalizers:
        names = ", ".join(facts.finalizers)
        return Next(Move.WAIT, step, f"for others to take off their finalizers: {names}")
    if step in (Step.CLEANED, Step.UNINSTALLED):
        return _through_the_tunnel(removal, facts, step)
    return Next(Move.DO, step)


def _through_the_tunnel(removal: Removal, facts: Facts, step: Step) -> Next:
    left = facts.known if step is Step.CLEANED else INSTALLED
    if not facts.joined:
        return Next(Move.SKIP, step, "there was never an agent")
    if facts.attached:
        return Next(Move.CALL, step)
    if step is Step.UNINSTALLED and removal.told is not None and facts.quiet:
        return Next(Move.SKIP, step, "the agent is gone since it was told to; what it did is not known", left)
    if removal.force:
        return Next(Move.SKIP, step, "forced: no agent is attached", left)
    return Next(Move.WAIT, step, "for an agent of the cluster to be attached (--force goes on without)")


class Removals:
    """A `gateway.database.Store`."""

    name = "removals"
    migrations: tuple[str, ...] = (
        """
        CREATE TABLE removal (
            cluster TEXT PRIMARY KEY, requested REAL NOT NULL, by TEXT NOT NULL, force INTEGER NOT NULL,
            done TEXT NOT NULL, waiting TEXT NOT NULL, remains TEXT NOT NULL, told REAL, finished REAL
        ) STRICT;
        """,
    )

    def __init__(self, database: Database) -> None:
        """Opens it on a database. :raises RegistryError: the file is of a later version."""
        self._database = database
        self._all: dict[str, Removal] = {}
        database.open(self)

    def get(self, cluster: str) -> Removal | None:
        """The one of a name; one that is done is remembered for a while."""
        return self._all.get(cluster)

    def unfinished(self) -> tuple[Removal, ...]:
        """Those that the server has to do, the oldest first."""
        return tuple(sorted((one for one in self._all.values() if one.finished is None), key=lambda one: one.requested))

    def ask(self, cluster: str, by: str, force: bool, now: float) -> Removal:
        """The wish, or the one that is there, which `force` makes stronger and nothing weaker."""
        there = self._all.get(cluster)
        if there is None or there.finished is not None:
            return self.put(Removal(cluster, now, by, force))
        return self.put(replace(there, force=True)) if force and not there.force else there

    def put(self, removal: Removal) -> Removal:
        """Keeps it as it is now."""
        if self._all.get(removal.cluster) == removal:
            return removal
        done = json.dumps([[one.step.name, one.when, one.message] for one in removal.done])
        row = (removal.cluster, removal.requested, removal.by, removal.force, done, removal.waiting)
        with self._database.writing() as database:
            database.execute(_PUT, (*row, json.dumps(removal.left), removal.told, removal.finished))
        self._all[removal.cluster] = removal
        return removal

    def drop_finished(self, now: float, keeps: Callable[[str], bool] = lambda _cluster: False) -> int:
        """Forgets those that have been done for a while, but of those that somebody `keeps`, since the hub has not
        heard of them; says how many. Writes nothing where there is none.
        """
        old = [one for one in self._all.values() if one.finished is not None and one.finished <= now - REMEMBERED]
        gone = [one for one in old if not keeps(one.cluster)]
        for one in gone:
            with self._database.writing() as database:
                database.execute("DELETE FROM removal WHERE cluster = ?", (one.cluster,))
            del self._all[one.cluster]
        return len(gone)

    def read(self, database: sqlite3.Connection) -> dict[str, Removal]:
        """See `gateway.database.Store`."""
        query = "SELECT cluster, requested, by, force, done, waiting, remains, told, finished FROM removal"
        made = [_removal(row) for row in database.execute(query).fetchall()]
        return {one.cluster: one for one in made}

    def take(self, content: dict[str, Removal]) -> None:
        """See `gateway.database.Store`."""
        self._all = content


def _removal(row: tuple[Any, ...]) -> Removal:
    cluster, requested, by, force, done, waiting, remains, told, finished = row
    steps = tuple(Done(Step[step], when, message) for step, when, message in json.loads(done))
    left = tuple(json.loads(remains))
    return Removal(cluster, requested, by, bool(force), steps, waiting, left, told, finished)
