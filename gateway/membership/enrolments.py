"""Who has asked to serve a cluster: requests that wait for an administrator, or for a name to be free.

A request is (cluster name, cluster id, key); an agent repeats it until it is answered. What a leaked token could fill
is bounded, for each token and in all, and who has not asked for a while is forgotten.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from gateway.database import Database, RegistryError

OF_TOKEN = 64
"""Requests that one token's holders may have open."""
IN_ALL = 2_000
WRITTEN = 60.0
"""Seconds between two writes of when a request was last seen: agents ask every few seconds."""
_TOLD = """
    INSERT INTO enrolment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET agent = excluded.agent,
    address = excluded.address, token = excluded.token, last = excluded.last, state = excluded.state,
    message = excluded.message
"""
"""What an administrator has decided meanwhile, in another process, stays."""
Key: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """How agents come in. Times are seconds.

    A certificate lives for seven days: its agent renews it at two thirds, so one that cannot reach its server for two
    days still comes back by itself; and since each use is checked against the store, its revocation waits for no end.
    """

    certificate_lifetime: float = 604_800.0
    auto_accept: tuple[str, ...] = ()
    """Names of clusters (with * and ?) whose requests need no administrator."""
    takeover_grace: float = 60.0
    """For how long all agents of a cluster must be gone for another one, accepted, to get its name."""
    request_lifetime: float = 3_600.0
    """After which a request that is not repeated is forgotten."""

    def problems(self) -> Iterator[str]:
        """What cannot be, as texts for the configuration's reader."""
        if not 600 <= self.certificate_lifetime <= 90 * 86_400:
            yield "enrolment.certificateLifetime is between ten minutes (600) and 90 days (7776000)"
        if self.takeover_grace < 1:
            yield "enrolment.takeoverGrace is less than a second: a blip would give a cluster's name away"
        if self.request_lifetime < 60:
            yield "enrolment.requestLifetime is less than a minute: agents do not always ask again in time"


class State(enum.Enum):
    """What the agent was told last."""

    PENDING = "pending"
    WAITING = "waiting"
    ACCEPTED = "accepted"
    DENIED = "denied"


class Choice(enum.Enum):
    """What an administrator has said."""

    NONE = ""
    ACCEPTED = "accepted"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One request. `fingerprint` is its key's; `first` and `last` are when it was seen."""

    cluster: str
    cluster_id: str
    fingerprint: str
    agent: str
    address: str
    token: str
    first: float
    last: float
    state: State = State.PENDING
    message: str = ""
    choice: Choice = Choice.NONE

    @property
    def key(self) -> Key:
        """What makes it the same request."""
        return self.cluster, self.cluster_id, self.fingerprint


class Enrolments:
    """A `gateway.database.Store`."""

    name = "enrolments"
    migrations: tuple[str, ...] = (
        """
        CREATE TABLE enrolment (
            cluster TEXT NOT NULL, cluster_id TEXT NOT NULL, fingerprint TEXT NOT NULL, agent TEXT NOT NULL,
            address TEXT NOT NULL, token TEXT NOT NULL, first REAL NOT NULL, last REAL NOT NULL, state TEXT NOT NULL,
            message TEXT NOT NULL, choice TEXT NOT NULL, PRIMARY KEY (cluster, cluster_id, fingerprint)
        ) STRICT;
        """,
    )

    def __init__(self, database: Database) -> None:
        """Opens it on a database. :raises RegistryError: the file is of a later version."""
        self._database = database
        self._all: dict[Key, Enrolment] = {}
        database.open(self)

    def get(self, key: Key) -> Enrolment | None:
        """One, from memory."""
        return self._all.get(key)

    def of(self, cluster: str) -> tuple[Enrolment, ...]:
        """Those for a name, the oldest first."""
        return tuple(one for one in self.list() if one.cluster == cluster)

    def list(self) -> tuple[Enrolment, ...]:
        """All, the oldest first."""
        return tuple(sorted(self._all.values(), key=lambda one: (one.first, one.key)))

    def asking(self) -> dict[str, tuple[str, ...]]:
        """Of each name, the cluster ids that nobody has decided about."""
        found: dict[str, list[str]] = {}
        for one in self.list():
            if one.choice is Choice.NONE and one.cluster_id not in (ids := found.setdefault(one.cluster, [])):
                ids.append(one.cluster_id)
        return {name: tuple(ids) for name, ids in found.items()}

    def told(self, request: Enrolment) -> None:
        """The agent was told `request.state`: kept with when it first asked, and with what was decided.

        :raises RegistryError: there are too many requests.
        """
        before = self._all.get(request.key)
        if before is not None:
            request = replace(request, first=before.first, choice=before.choice)
            said = request.state, request.message  # the address is another one for each connection
            if said == (before.state, before.message) and request.last - before.last < WRITTEN:
                return
        else:
            self._check_room(request.token)
        with self._database.writing() as database:
            database.execute(_TOLD, _row(request))
        self._all[request.key] = request

    def _check_room(self, token: str) -> None:
        if len(self._all) >= IN_ALL or sum(one.token == token for one in self._all.values()) >= OF_TOKEN:
            raise RegistryError("too many agents have asked and wait for an administrator: try again later")

    def decide(self, keys: Iterable[Key], choice: Choice) -> None:
        """An administrator has decided about requests; those that are gone meanwhile are passed over."""
        known = [self._all[key] for key in keys if key in self._all]
        query = "UPDATE enrolment SET choice = ? WHERE cluster = ? AND cluster_id = ? AND fingerprint = ?"
        with self._database.writing() as database:
            database.executemany(query, [(choice.value, *one.key) for one in known])
        for one in known:
            self._all[one.key] = replace(one, choice=choice)

    def remove(self, key: Key) -> None:
        """It was answered. Harmless where it is gone."""
        if self._all.pop(key, None) is not None:
            with self._database.writing() as database:
                query = "DELETE FROM enrolment WHERE cluster = ? AND cluster_id = ? AND fingerprint = ?"
                database.execute(query, key)

    def remove_of(self, cluster: str) -> int:
        """Forgets all for a name; says how many."""
        return self._remove([one for one in self._all.values() if one.cluster == cluster])

    def drop_expired(self, now: float, lifetime: float) -> int:
        """Forgets who has not asked for so long; says how many. Writes nothing where there is none."""
        return self._remove([one for one in self._all.values() if one.last <= now - lifetime])

    def _remove(self, gone: Sequence[Enrolment]) -> int:
        if gone:
            with self._database.writing() as database:
                query = "DELETE FROM enrolment WHERE cluster = ? AND cluster_id = ? AND fingerprint = ?"
                database.executemany(query, [one.key for one in gone])
            for one in gone:
                del self._all[one.key]
        return len(gone)

    def read(self, database: sqlite3.Connection) -> dict[Key, Enrolment]:
        """See `gateway.database.Store`."""
        query = (
            "SELECT cluster, cluster_id, fingerprint, agent, address, token, first, last, state, message, choice "
            "FROM enrolment"
        )
        made = [_enrolment(row) for row in database.execute(query).fetchall()]
        return {one.key: one for one in made}

    def take(self, content: dict[Key, Enrolment]) -> None:
        """See `gateway.database.Store`."""
        self._all = content


def _row(one: Enrolment) -> tuple[object, ...]:
    fields = (one.agent, one.address, one.token, one.first, one.last, one.state.value, one.message, one.choice.value)
    return (*one.key, *fields)


def _enrolment(row: tuple[Any, ...]) -> Enrolment:
    cluster, cluster_id, fingerprint, agent, address, token, first, last, state, message, choice = row
    who = (cluster, cluster_id, fingerprint, agent, address, token)
    return Enrolment(*who, first, last, State(state), message, Choice(choice))
