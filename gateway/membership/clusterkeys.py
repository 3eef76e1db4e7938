"""What clusters report of the keys that sign their service accounts' tokens: pinned in the server's SQLite file.

A session is authenticated for one cluster, by its certificate and its pinned id, and a report counts for that cluster
alone: whoever could lie in it holds that cluster's agent already, and gains nothing by it, since a token that passes
here only gets as far as the same cluster's API server, which checks it again by the keys that it really has. So a
cluster's new key set is taken over as it comes. One that shares no key with the last one is told in the log: rotation
overlaps.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from auth.clustertokens import PinnedIssuer
from auth.oidc.jwks import BadKeySet, parse_key_set
from gateway.database import Database
from gateway.membership.registry import Change, Cluster
from gateway.membership.rows import among, listed
from stub.session import AgentInfo
from tunnel.calls import CallFailed, Method, Params

MAX_JWKS: Final = 32 * 1024
MAX_ISSUER: Final = 1_024
MAX_AUDIENCES: Final = 16
HISTORY: Final = 8
"""Former key sets of a cluster, by digest, for people who look into the file."""
PAUSE: Final = 60.0
"""Seconds between two changes of one cluster's keys: each is a write, and nobody rotates faster."""
REPORT: Final = "cluster.report"

_ALL: Final = "SELECT cluster, uid, issuer, audiences, jwks, version, first, changed FROM cluster_key"
_log = logging.getLogger(__name__)


class BadReport(ValueError):
    """A report that cannot be taken; the text says why."""


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What an agent says of its API server. `version` is Kubernetes' own, and may be empty."""

    issuer: str
    audiences: tuple[str, ...]
    jwks: str
    version: str = ""

    @classmethod
    def of(cls, params: Params) -> KeyReport:
        """:raises BadReport: something is missing, too long or malformed."""
        audiences = params.get("audiences")
        if not isinstance(audiences, list) or not 0 < len(audiences) <= MAX_AUDIENCES:
            raise BadReport(f"audiences must be 1 to {MAX_AUDIENCES} texts")
        told = [_text(one, MAX_ISSUER, "audiences") for one in audiences]
        jwks = params.get("jwks")
        if not isinstance(jwks, str) or len(jwks) > MAX_JWKS:
            raise BadReport(f"jwks must be a text of at most {MAX_JWKS} characters")
        version = _text(params.get("version", "-") or "-", 64, "version")
        return cls(_text(params.get("issuer"), MAX_ISSUER, "issuer"), tuple(dict.fromkeys(told)), jwks, version)

    def pinned(self) -> PinnedIssuer:
        """:raises BadReport: there is no key in it that a token could be checked with."""
        try:
            keys = parse_key_set(self.jwks.encode())
        except (BadKeySet, UnicodeEncodeError) as bad:
            raise BadReport(f"jwks: {bad}") from None
        if not keys.keys:
            raise BadReport("jwks has no key that can be used")
        return PinnedIssuer(self.issuer, frozenset(self.audiences), keys)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A cluster's report as it is kept, for the cluster of this id. Times are epoch seconds."""

    uid: str
    report: KeyReport
    issuer: PinnedIssuer
    first: float
    changed: float


_Content: TypeAlias = dict[str, Pinned]


class ClusterKeys:
    """Implements `auth.clustertokens.PinnedKeys`, in the server's file. `subscribe` hears of every change."""

    name = "cluster keys"
    migrations: tuple[str, ...] = (
        """
        CREATE TABLE cluster_key (
            cluster TEXT PRIMARY KEY, uid TEXT NOT NULL, issuer TEXT NOT NULL, audiences TEXT NOT NULL,
            jwks TEXT NOT NULL, version TEXT NOT NULL, first REAL NOT NULL, changed REAL NOT NULL
        ) STRICT;
        CREATE TABLE cluster_key_history (
            cluster TEXT NOT NULL, until REAL NOT NULL, issuer TEXT NOT NULL, kids TEXT NOT NULL
        ) STRICT;
        """,
    )

    def __init__(self, database: Database) -> None:
        """:raises RegistryError: the file cannot be used."""
        self._database = database
        self._told: list[Callable[[], None]] = []
        self._pinned: _Content = {}
        database.open(self)

    def subscribe(self, told: Callable[[], None]) -> None:
        """Calls back when the keys have changed: who remembers identities has to forget them."""
        self._told.append(told)

    def _tell(self) -> None:
        for told in self._told:
            told()

    def get(self, cluster: str) -> PinnedIssuer | None:
        """See `PinnedKeys`."""
        found = self._pinned.get(cluster)
        return found.issuer if found is not None else None

    def pinned(self, cluster: str) -> Pinned | None:
        """All that is kept of a cluster's report."""
        return self._pinned.get(cluster)

    def report(self, cluster: str, uid: str, report: KeyReport, now: float) -> bool:
        """Takes a report of a cluster's own agent over; whether it changed anything.

        :raises BadReport: it is none, or comes too soon after a change.
        :raises RegistryError: it cannot be written down.
        """
        before = self._pinned.get(cluster)
        if before is not None and (before.uid, before.report) == (uid, report):
            return False
        if before is not None and before.uid == uid and before.changed <= now < before.changed + PAUSE:
            raise BadReport(f"the keys of this cluster have changed already within {PAUSE:g} s")
        first = before.first if before is not None and before.uid == uid else now
        pinned = Pinned(uid, report, report.pinned(), first, now)
        self._check_own(pinned)
        self._write(cluster, before, pinned)
        self._pinned = self._pinned | {cluster: pinned}
        _tell(cluster, before, pinned)
        self._tell()
        return True

    def _check_own(self, pinned: Pinned) -> None:
        """Key sets are public: whoever reported another cluster's would be sent that one's tokens."""
        mine = [key.public for key in pinned.issuer.keys.keys]
        for other in self._pinned.values():
            if other.uid != pinned.uid and any(key.public in mine for key in other.issuer.keys.keys):
                raise BadReport("one of these keys is another cluster's: no two clusters may have one in common")

    def changed(self, change: Change, cluster: Cluster) -> None:
        """A registry's subscriber: what is not the registered cluster's is dropped."""
        known = self._pinned.get(cluster.name)
        if known is not None and (change is Change.REMOVED or cluster.uid != known.uid):
            self._drop([cluster.name])

    def keep_only(self, clusters: Iterable[Cluster]) -> None:
        """Drops what is no registered cluster's: the command may have removed some while no server ran."""
        uids = {cluster.name: cluster.uid for cluster in clusters}
        self._drop([name for name, known in self._pinned.items() if uids.get(name) != known.uid])

    def read(self, database: sqlite3.Connection) -> _Content:
        """See `gateway.database.Store`."""
        return _pinned(database.execute(_ALL).fetchall())

    def take(self, content: _Content) -> None:
        """See `gateway.database.Store`."""
        before, self._pinned = self._pinned, content
        if before != content:
            self._tell()

    def read_part(self, database: sqlite3.Connection, names: frozenset[str]) -> _Content:
        """See `gateway.database.PartialStore`."""
        return _pinned(database.execute(f"{_ALL}{among('cluster', names)}", listed(names)).fetchall())

    def take_part(self, names: frozenset[str], content: _Content) -> None:
        """See `gateway.database.PartialStore`."""
        if any(self._pinned.get(name) != content.get(name) for name in names):
            self.take({name: known for name, known in self._pinned.items() if name not in names} | content)

    def _write(self, cluster: str, before: Pinned | None, pinned: Pinned) -> None:
        report = pinned.report
        row = (cluster, pinned.uid, report.issuer, json.dumps(report.audiences), report.jwks, report.version)
        with self._database.writing() as database:
            if before is not None:
                past = (cluster, pinned.changed, before.report.issuer, json.dumps(sorted(_kids(before))))
                database.execute("INSERT INTO cluster_key_history VALUES (?, ?, ?, ?)", past)
            database.execute(
                "DELETE FROM cluster_key_history WHERE cluster = ? AND rowid NOT IN (SELECT rowid FROM"
                " cluster_key_history WHERE cluster = ? ORDER BY until DESC, rowid DESC LIMIT ?)",
                (cluster, cluster, HISTORY),
            )
            values = (*row, pinned.first, pinned.changed)
            database.execute("INSERT OR REPLACE INTO cluster_key VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def _drop(self, names: list[str]) -> None:
        if not names:
            return
        with self._database.writing() as database:
            for name in names:
                database.execute("DELETE FROM cluster_key WHERE cluster = ?", (name,))
                database.execute("DELETE FROM cluster_key_history WHERE cluster = ?", (name,))
        self._pinned = {name: known for name, known in self._pinned.items() if name not in names}
        self._tell()


def report_methods(keys: ClusterKeys, agent: AgentInfo, wall: Callable[[], float]) -> Mapping[str, Method]:
    """What an agent may call here. Its session says whose keys it reports; nothing in the call does."""

    async def report(params: Params) -> Params:
        try:
            changed = keys.report(agent.cluster, agent.cluster_id, KeyReport.of(params), wall())
        except BadReport as bad:
            raise CallFailed("report", str(bad)) from None
        return {"changed": changed}

    return {REPORT: report}


def _pinned(rows: Iterable[tuple[Any, ...]]) -> _Content:
    found = ((row[0], _of_row(row)) for row in rows)
    return {cluster: pinned for cluster, pinned in found if pinned is not None}


def _of_row(row: tuple[Any, ...]) -> Pinned | None:
    """None for keys that are not taken any more: the agent will report anew."""
    cluster, uid, issuer, audiences, jwks, version, first, changed = row
    try:
        report = KeyReport(issuer, tuple(json.loads(audiences)), jwks, version)
        return Pinned(uid, report, report.pinned(), first, changed)
    except (BadReport, ValueError):
        _log.warning("a cluster's pinned keys cannot be used", extra={"cluster": cluster})
        return None


def _kids(pinned: Pinned) -> set[str]:
    return {key.kid for key in pinned.issuer.keys.keys if key.kid is not None}


def _tell(cluster: str, before: Pinned | None, after: Pinned) -> None:
    if before is None or before.uid != after.uid:
        _log.info("the keys of a cluster's service accounts are pinned", extra={"cluster": cluster})
    elif _kids(before) & _kids(after):
        _log.info("a cluster has rotated its service accounts' keys", extra={"cluster": cluster})
    else:
        _log.warning("a cluster's new service account keys share none with the old ones", extra={"cluster": cluster})


def _text(value: object, limit: int, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise BadReport(f"{name} must be texts of at most {limit} printable characters")
    return value
