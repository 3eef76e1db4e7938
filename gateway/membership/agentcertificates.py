"""The agents' certificates that were issued and not forgotten: a certificate that is not here does not count, however
well it is signed. Hence removing a row revokes, and a revoked row is kept for people to see, until it has expired.

What a leaked token could fill is bounded for each cluster. Where a cluster has its number, the certificate that nobody
has shown for the longest time makes room: agents that keep no key are enrolled anew at each start, and must not lock
their cluster out.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from gateway.database import Database, RegistryError
from gateway.membership.rows import among, listed

MOST = 64
"""Certificates that count, for each cluster."""
_ALL = "SELECT serial, cluster, cluster_id, agent, fingerprint, issued, expires, revoked, root FROM agent_certificate"
UNUSED = 3600.0
"""Seconds that a certificate must not have been shown for, to make room."""


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """One of them. `serial` is lower-case hex, `fingerprint` its key's; `revoked` is when, or None. `root` is the one
    that an enrolment gave, from which this one was renewed; empty: it is that one.
    """

    serial: str
    cluster: str
    cluster_id: str
    agent: str
    fingerprint: str
    issued: float
    expires: float
    revoked: float | None = None
    root: str = ""

    @property
    def line(self) -> str:
        """What it has in common with all that were renewed from one another."""
        return self.root or self.serial

    def counts(self, now: float) -> bool:
        """Whether its holder may come in by it."""
        return self.revoked is None and now < self.expires


class AgentCertificates:
    """A `gateway.database.Store`."""

    name = "agent-certificates"
    migrations: tuple[str, ...] = (
        """
        CREATE TABLE agent_certificate (
            serial TEXT PRIMARY KEY, cluster TEXT NOT NULL, cluster_id TEXT NOT NULL, agent TEXT NOT NULL,
            fingerprint TEXT NOT NULL, issued REAL NOT NULL, expires REAL NOT NULL, revoked REAL
        ) STRICT;
        CREATE INDEX agent_certificate_cluster ON agent_certificate (cluster);
        """,
        "ALTER TABLE agent_certificate ADD COLUMN root TEXT NOT NULL DEFAULT '';",
    )

    def __init__(self, database: Database) -> None:
        """Opens it on a database. :raises RegistryError: the file is of a later version."""
        self._database = database
        self._by_serial: dict[str, IssuedCertificate] = {}
        self._by_cluster: dict[str, dict[str, IssuedCertificate]] = {}
        self._shown: dict[str, float] = {}
        self._began: float | None = None
        database.open(self)

    def get(self, serial: str) -> IssuedCertificate | None:
        """One by its serial, from memory."""
        return self._by_serial.get(serial)

    def of(self, cluster: str) -> tuple[IssuedCertificate, ...]:
        """Those of a cluster's name, the oldest first; revoked ones among them."""
        return tuple(sorted(self._by_cluster.get(cluster, {}).values(), key=lambda one: (one.issued, one.serial)))

    def certified(self, cluster: str, cluster_id: str, now: float) -> bool:
        """Whether an agent of this very cluster has one that counts."""
        found = self._by_cluster.get(cluster, {}).values()
        return any(one.cluster_id == cluster_id and one.counts(now) for one in found)

    def has_key(self, cluster: str, cluster_id: str, fingerprint: str, now: float) -> bool:
        """Whether this key has one that counts, as an agent of this very cluster."""
        found = self._by_cluster.get(cluster, {}).values()
        return any((one.cluster_id, one.fingerprint) == (cluster_id, fingerprint) and one.counts(now) for one in found)

    def shown(self, serial: str, now: float) -> None:
        """Its holder has come, or is attached."""
        self._begin(now)
        self._shown[serial] = now

    def add(self, made: IssuedCertificate, now: float) -> None:
        """Keeps one, and makes room for it. :raises RegistryError: the cluster has as many as it may, all in use."""
        self._begin(now)
        there = [one for one in self.of(made.cluster) if one.counts(now)]
        leaving = self._room(there, now) if len(there) >= MOST else None
        row = (made.serial, made.cluster, made.cluster_id, made.agent, made.fingerprint, made.issued, made.expires)
        with self._database.writing("there is a certificate of this serial already") as database:
            if leaving is not None:
                database.execute("DELETE FROM agent_certificate WHERE serial = ?", (leaving.serial,))
            database.execute("INSERT INTO agent_certificate VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?)", (*row, made.root))
        if leaving is not None:
            self._forget(leaving)
        self._keep(made)

    def _room(self, there: list[IssuedCertificate], now: float) -> IssuedCertificate:
        oldest = min(there, key=self._last_shown)
        if now - self._last_shown(oldest) < UNUSED:
            raise RegistryError(f"cluster {oldest.cluster!r} has {MOST} certificates of agents in use: revoke some")
        return oldest

    def _last_shown(self, one: IssuedCertificate) -> float:
        """What nobody has shown to this process may have been shown to the one before, or come in a moment."""
        return max(one.issued, self._shown.get(one.serial, self._began or 0.0))

    def _begin(self, now: float) -> None:
        if self._began is None:
            self._began = now

    def revoke(self, serial: str, now: float) -> IssuedCertificate:
        """It does not count any more, nor does its key; nor what was renewed from it, perhaps by whoever stole it.

        :raises RegistryError: there is none of this serial.
        """
        known = self._by_serial.get(serial)
        if known is None:
            raise RegistryError(f"there is no certificate {serial!r}: `kulvert cluster certificates` shows them")
        if known.revoked is not None:
            return known
        later = [one for one in self.of(known.cluster) if one.line == known.line and one.issued >= known.issued]
        gone = [one for one in later if one.revoked is None]
        with self._database.writing() as database:
            query = "UPDATE agent_certificate SET revoked = ? WHERE serial = ?"
            database.executemany(query, [(now, one.serial) for one in gone])
        for one in gone:
            self._keep(replace(one, revoked=now))
        return self._by_serial[serial]

    def remove_of(self, cluster: str, cluster_id: str | None = None) -> int:
        """Revokes and forgets all of a name, or those of one cluster id; says how many. Their keys may come again."""
        found = [one for one in self.of(cluster) if cluster_id in (None, one.cluster_id)]
        if found:
            with self._database.writing() as database:
                query = "DELETE FROM agent_certificate WHERE serial = ?"
                database.executemany(query, [(one.serial,) for one in found])
            for one in found:
                self._forget(one)
        return len(found)

    def drop_expired(self, now: float) -> int:
        """Forgets those that have expired, and says how many. Writes nothing where there is none."""
        gone = [one for one in self._by_serial.values() if one.expires <= now]
        if gone:
            with self._database.writing() as database:
                database.execute("DELETE FROM agent_certificate WHERE expires <= ?", (now,))
            for one in gone:
                self._forget(one)
        return len(gone)

    def _keep(self, one: IssuedCertificate) -> IssuedCertificate:
        self._by_serial[one.serial] = one
        self._by_cluster.setdefault(one.cluster, {})[one.serial] = one
        return one

    def _forget(self, one: IssuedCertificate) -> None:
        del self._by_serial[one.serial]
        del self._by_cluster[one.cluster][one.serial]
        if not self._by_cluster[one.cluster]:
            del self._by_cluster[one.cluster]
        self._shown.pop(one.serial, None)

    def read(self, database: sqlite3.Connection) -> list[IssuedCertificate]:
        """See `gateway.database.Store`."""
        return [IssuedCertificate(*row) for row in database.execute(_ALL).fetchall()]

    def read_part(self, database: sqlite3.Connection, names: frozenset[str]) -> list[IssuedCertificate]:
        """See `gateway.database.PartialStore`; the names are clusters'."""
        rows = database.execute(f"{_ALL}{among('cluster', names)}", listed(names)).fetchall()
        return [IssuedCertificate(*row) for row in rows]

    def take_part(self, names: frozenset[str], content: list[IssuedCertificate]) -> None:
        """See `gateway.database.PartialStore`."""
        there = {one.serial for one in content}
        for name in names:
            for serial in self._by_cluster.pop(name, {}):
                del self._by_serial[serial]
                if serial not in there:
                    self._shown.pop(serial, None)
        for one in content:
            self._keep(one)

    def take(self, content: list[IssuedCertificate]) -> None:
        """See `gateway.database.Store`."""
        self._by_serial, self._by_cluster = {}, {}
        for one in content:
            self._keep(one)
        self._shown = {serial: when for serial, when in self._shown.items() if serial in self._by_serial}
